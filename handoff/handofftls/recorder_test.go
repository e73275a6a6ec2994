package handofftls

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
)

// A recorder is at the client's socket. It opens each record that arrives there with each
// sequence number that was used before, and so finds a nonce that was used twice.
type recorder struct {
	net.Conn
	h       half // of the server, at the end of the handshake
	rest    []byte
	records int // that it has opened
}

// lastWords is what a predecessor tries to write when it does not know whether the
// successor has used the state. The client must not get it.
const lastWords = "the predecessor's last words"

// record puts a recorder below a peer.
func record(p peer) *recorder {
	r := &recorder{Conn: p.raw, h: p.l.in}
	r.h.secret = bytes.Clone(p.l.in.secret)
	p.l.raw = r
	return r
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.rest = append(r.rest, p[:n]...)
	return n, err
}

// drain reads to the end of the connection, and returns what is wrong with all that has
// arrived.
func (r *recorder) drain() error {
	_, _ = io.Copy(io.Discard, r) // a reset is an end as well
	for len(r.rest) >= recordHeader {
		n := recordHeader + int(r.rest[3])<<8 + int(r.rest[4])
		if n > len(r.rest) {
			if len(r.rest) > n/2 { // a stutter writes a half
				return fmt.Errorf("%d bytes are the last, of a record of %d: more than a half", len(r.rest), n)
			}
			break
		}
		if err := r.open(r.rest[:n]); err != nil {
			return err
		}
		r.rest = r.rest[n:]
		r.records++
	}
	return nil
}

// errTwice says that two records are under one key and sequence number.
var errTwice = errors.New("a nonce was used twice")

func (r *recorder) open(record []byte) error {
	typ, data, err := r.h.open(bytes.Clone(record))
	switch {
	case err == nil && bytes.Contains(data, []byte(lastWords)):
		return fmt.Errorf("the client gets %q", data)
	case err == nil && typ == typeHandshake && len(data) == keyUpdateSize:
		return r.h.update()
	case err == nil:
		return nil
	}
	for seq := range r.h.seq {
		h := r.h
		h.seq = seq
		if _, _, err := h.open(bytes.Clone(record)); err == nil {
			return fmt.Errorf("%w: record %d has that of record %d", errTwice, r.h.seq, seq)
		}
	}
	return fmt.Errorf("a record does not open: it is not that with sequence number %d, nor one before", r.h.seq)
}

// stutter writes a half of the first record, and the rest when between has returned nil.
type stutter struct {
	net.Conn
	between func() error
	done    bool
}

func (s *stutter) Write(p []byte) (int, error) {
	if s.done {
		return s.Conn.Write(p)
	}
	s.done = true
	n, err := s.Conn.Write(p[:len(p)/2])
	if err == nil {
		err = s.between()
	}
	if err != nil {
		return n, err
	}
	m, err := s.Conn.Write(p[n:])
	return n + m, err
}

// TestRecorder has two processes write under one key, which Send prevents: the recorder
// finds it. It finds the last words, too.
func TestRecorder(t *testing.T) {
	t.Parallel()
	start := func() (*recorder, *Conn, *Conn) {
		p, c := establishPeer(t, plain())
		r := record(p)
		both(t, p, c, "before")
		if err := c.canMoveLocked(true); err != nil {
			t.Fatal(err)
		}
		next, _, err := receive(handoff.MovedConn{Conn: c.raw, State: c.moving().encode(nil)}, c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.resume() // the fault
		return r, c, next
	}
	finish := func(r *recorder, c *Conn) error {
		t.Helper()
		if err := c.raw.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		return r.drain()
	}
	write := func(c *Conn, text string) {
		t.Helper()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}

	r, c, next := start()
	write(next, "the successor's")
	write(next, "the successor's second")
	write(c, "the predecessor's")
	if err := finish(r, c); !errors.Is(err, errTwice) || !strings.Contains(err.Error(), "record 4 has that of record 2") {
		t.Errorf("the recorder finds %v, want a nonce that was used twice", err)
	}

	r, c, _ = start()
	write(c, lastWords)
	if err := finish(r, c); err == nil || errors.Is(err, errTwice) {
		t.Errorf("the recorder finds %v, want the last words", err)
	}

	r, c, next = start()
	next.layer.raw = &stutter{Conn: c.raw, between: func() error { return io.ErrShortWrite }}
	if _, err := next.Write([]byte("the successor's")); !errors.Is(err, io.ErrShortWrite) {
		t.Fatal(err)
	}
	write(c, "x")
	if err := finish(r, c); err == nil {
		t.Error("the recorder finds nothing where another process writes on within a record")
	}

	r, c, _ = start()
	write(c, "alone")
	if err := finish(r, c); err != nil || r.records != 2 {
		t.Errorf("the recorder finds %v in %d records, want nothing in 2", err, r.records)
	}
}
