package handoff_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// rawPeer is a peer of a control socket that need not keep to anything.
type rawPeer struct {
	tb   testing.TB
	uc   *net.UnixConn
	conn *fdpass.Conn
}

func dialRaw(tb testing.TB, path string) *rawPeer {
	tb.Helper()
	uc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		tb.Fatal(err)
	}
	return newRawPeer(tb, uc)
}

func newRawPeer(tb testing.TB, uc *net.UnixConn) *rawPeer {
	tb.Helper()
	p := &rawPeer{tb: tb, uc: uc, conn: fdpass.New(uc)}
	tb.Cleanup(p.close)
	if err := uc.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	return p
}

// listenRaw returns a listener, and its path, for a test that plays the predecessor.
func listenRaw(tb testing.TB) (*net.UnixListener, string) {
	tb.Helper()
	path := filepath.Join(testenv.ShortDir(tb), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ln.Close() })
	if err := ln.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	return ln, path
}

// controlOf returns the path of a service's control socket.
func controlOf(s *service) string { return filepath.Join(s.set.Dir, "ctl", "s") }

// send sends a message. The peer may be gone before it has read all of it.
func (p *rawPeer) send(m wire.Message, fds ...int) {
	p.tb.Helper()
	if err := p.conn.Send(uint16(m.Type()), wire.Append(nil, m), fds); err != nil && !errors.Is(err, syscall.EPIPE) {
		p.tb.Fatal(err)
	}
}

// write sends bytes, and descriptors with the first of them.
func (p *rawPeer) write(b []byte, fds ...int) {
	p.tb.Helper()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := p.uc.WriteMsgUnix(b, rights, nil); err != nil && !errors.Is(err, syscall.EPIPE) {
		p.tb.Fatal(err)
	}
}

func (p *rawPeer) close() { _ = p.conn.Close() }

// recv returns the next message.
func (p *rawPeer) recv() (wire.Message, error) {
	f, err := p.conn.Recv()
	if err != nil {
		return nil, err
	}
	_ = fdx.Close(f.FDs...)
	return wire.Decode(wire.Type(f.Type), f.Payload)
}

// rest reads until the other side closes, and returns the reason of a refusal.
func (p *rawPeer) rest() failure.Reason {
	p.tb.Helper()
	var reason failure.Reason
	for {
		m, err := p.recv()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.tb.Fatalf("the connection is open after %v", patience)
		}
		if err != nil {
			return reason
		}
		switch m := m.(type) {
		case *wire.Refuse:
			reason = m.Reason
		case *wire.Rollback:
			p.close() // it waits for an answer, for as long as it waits for any
		}
	}
}

// header is the header of a frame, see fdpass.
func header(size uint32, typ wire.Type, fds uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, size)
	b = binary.BigEndian.AppendUint16(b, uint16(typ))
	return binary.BigEndian.AppendUint16(b, fds)
}

// nulls returns n descriptors of the null device.
func nulls(tb testing.TB, n int) []int {
	tb.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() })
	fd, err := fdx.Number(f)
	if err != nil {
		tb.Fatal(err)
	}
	return slices.Repeat([]int{fd}, n)
}

func hello(change func(*wire.Hello)) *wire.Hello {
	h := &wire.Hello{MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion, PID: int64(os.Getpid()), Build: "raw"}
	if change != nil {
		change(h)
	}
	return h
}

// mustAnswer asks a question and wants generation want to answer.
func mustAnswer(tb testing.TB, addr string, want uint64) {
	tb.Helper()
	if gen, err := ask("tcp", addr); err != nil || gen != want {
		tb.Errorf("%s is answered by generation %d, %v, want %d", addr, gen, err, want)
	}
}

// jsonEnv is an environment variable that holds v.
func jsonEnv(tb testing.TB, name string, v any) string {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return name + "=" + string(b)
}
