package handoffhttp_test

import (
	"context"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// TestCalledBackWithData has a Read called back at the moment at which it returns
// with the first byte of a request: the deadline must not be left for the next
// Read.
func TestCalledBackWithData(t *testing.T) {
	t.Parallel()
	conns := make(chan net.Conn, 1)
	l := newLine(t, nil, func(g *generation) {
		g.srv.ConnState = func(nc net.Conn, st http.ConnState) {
			if st == http.StateNew {
				conns <- nc
			}
		}
	})
	c := l.dial()
	nc := <-conns
	eventually(t, "the server reads", func() bool { return handoffhttp.Waiting(nc) })
	handoffhttp.CallBackRace(nc, func(raw syscall.Conn) {
		c.send(get[:1])
		eventually(t, "the byte is read", func() bool { return queued(t, raw) == 0 })
	})
	eventually(t, "the byte is read", func() bool { return l.now.s.Begun() == 1 })
	c.send(get[1:])
	c.want(1, "GET", "/a")
}

// queued returns how many bytes wait to be read.
func queued(tb testing.TB, c syscall.Conn) int {
	tb.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	if err := rc.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
		tb.Fatal(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// TestAcceptedLate has a connection that was accepted, and of which net/http has
// not spoken yet, when the linger begins: the linger waits for it.
func TestAcceptedLate(t *testing.T) {
	t.Parallel()
	held, let := make(chan struct{}), make(chan struct{})
	var once sync.Once
	l := newLine(t, nil, func(g *generation) {
		g.srv.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
			once.Do(func() {
				close(held)
				<-let
			})
			return ctx
		}
	})
	c := l.dial()
	<-held
	g := l.now
	go func() {
		<-g.up.done
		select {
		case r := <-g.report:
			g.report <- r
			t.Error("the linger has ended, want it to wait for the connection")
		case <-time.After(50 * time.Millisecond): // enough for the fault to show
		}
		close(let)
	}()
	if r := l.upgrade(); r.Moved != 1 {
		t.Errorf("linger: %+v, want one moved", r)
	}
	c.send(get)
	c.want(2, "GET", "/a")
}

// failing is a listener whose next calls of Accept fail.
type failing struct {
	net.Listener
	mu    sync.Mutex
	err   error
	times int
}

func (f *failing) Accept() (net.Conn, error) {
	f.mu.Lock()
	fails := f.times > 0
	f.times--
	f.mu.Unlock()
	if fails {
		return nil, f.err
	}
	return f.Listener.Accept()
}

// TestAcceptFails goes on to accept after errors that pass, one and several, with an Upgrader and
// without; before the linger and in it.
func TestAcceptFails(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.ENOMEM, syscall.ENOBUFS, syscall.EMFILE, syscall.ENFILE, syscall.EPROTO, syscall.EHOSTUNREACH} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			err := &net.OpError{Op: "accept", Net: "tcp", Err: errno}
			l := newLeaver(t, &failing{Listener: listen(t), err: err, times: 1}, nil, nil)
			c := l.dial()
			c.send(get)
			c.want(1, "GET", "/a")
			_ = c.nc.Close()
			l.shutdown(context.Background())
			l.gone(nil)

			up := newFakeUpgrader()
			ln := &failing{Listener: listen(t), err: err, times: 4}
			s := handoffhttp.NewTestServer(up, &http.Server{Handler: l.srv.Handler, ErrorLog: l.srv.ErrorLog}, nil)
			served := make(chan error, 1)
			go func() { served <- s.Serve(ln) }()
			c = newClient(t, func() net.Conn {
				nc, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				return nc
			}())
			c.send(get)
			c.want(1, "GET", "/a")
			_ = c.nc.Close()
			close(up.done)
			_ = ln.Close()
			<-served
			s.Linger(context.Background())
		})
	}
}
