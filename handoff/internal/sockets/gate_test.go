package sockets_test

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
)

// call is a blocking call on a make-believe socket, which a deadline in the
// past calls out.
type call struct {
	mu    sync.Mutex
	timer *time.Timer
	out   chan struct{}
}

func newCall() *call { return &call{out: make(chan struct{})} }

func (c *call) setDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	select {
	case <-c.out:
		c.out = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return nil
	}
	out := c.out
	c.timer = time.AfterFunc(time.Until(t), func() { close(out) })
	return nil
}

func (c *call) block() error {
	c.mu.Lock()
	out := c.out
	c.mu.Unlock()
	<-out
	return os.ErrDeadlineExceeded
}

func TestGatePauseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		g := sockets.NewGate(sockets.GateOpen, c.setDeadline)
		var inside atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for g.Enter() == nil {
					inside.Add(1)
					_ = c.block() // until the deadline calls it out
					time.Sleep(time.Millisecond)
					inside.Add(-1)
					g.Exit()
				}
			})
		}
		synctest.Wait()
		if n := inside.Load(); n != 8 {
			t.Fatalf("inside an open gate: %d, want 8", n)
		}
		for range 3 {
			g.Pause()
			if n := inside.Load(); n != 0 {
				t.Fatalf("after Pause() inside: %d, want 0", n)
			}
			time.Sleep(time.Second)
			if n := inside.Load(); n != 0 {
				t.Fatalf("while paused inside: %d, want 0", n)
			}
			g.Open()
			synctest.Wait()
			if n := inside.Load(); n != 8 {
				t.Fatalf("after Open() inside: %d, want 8", n)
			}
		}
		g.Shut()
		wg.Wait()
		if err := g.Enter(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Enter() at a shut gate = %v, want net.ErrClosed", err)
		}
		g.Open()
		if err := g.Enter(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Enter() after Shut() and Open() = %v, want net.ErrClosed", err)
		}
	})
}

func TestGateUserDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		g := sockets.NewGate(sockets.GatePaused, c.setDeadline)
		start := time.Now()
		if err := g.SetUserDeadline(start.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if err := g.Enter(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Enter() = %v, want os.ErrDeadlineExceeded", err)
		}
		if d := time.Since(start); d != time.Minute {
			t.Errorf("Enter() returned after %v, want 1m", d)
		}
		// A deadline that is moved while a call waits.
		done := make(chan error)
		if err := g.SetUserDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		go func() { done <- g.Enter() }()
		synctest.Wait()
		if err := g.SetUserDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Enter() = %v, want os.ErrDeadlineExceeded", err)
		}
	})
}

// TestListenerPause pauses and resumes a listener again and again under load:
// every connection is answered, and none while it is paused.
func TestListenerPause(t *testing.T) {
	t.Parallel()
	for _, accepters := range []int{1, 16} {
		s := sockets.NewTestSocket(t, "tcp", "127.0.0.1:0")
		ln := s.Listener
		var paused atomic.Bool
		var wg sync.WaitGroup
		for range accepters {
			wg.Go(func() {
				for {
					c, err := ln.Accept(nil)
					if err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Errorf("Accept() = %v, want net.ErrClosed", err)
						}
						return
					}
					_ = c.Close()
				}
			})
		}
		const clients, conns = 4, 250
		var cw sync.WaitGroup
		for range clients {
			cw.Go(func() {
				for range conns {
					c, err := net.Dial("tcp", ln.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || err.Error() != "EOF" {
						t.Errorf("Read() = %d, %v, want EOF", n, err)
					}
					_ = c.Close()
				}
			})
		}
		stop := make(chan struct{})
		var pw sync.WaitGroup
		pauses := 0
		pw.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s.Pause()
				paused.Store(true)
				before := ln.Accepted()
				for range 10 {
					if n := ln.Accepted(); n != before {
						t.Errorf("accepted while paused: %d", n-before)
					}
				}
				paused.Store(false)
				s.Open()
				pauses++
			}
		})
		cw.Wait()
		close(stop)
		pw.Wait()
		if n := ln.Accepted(); n != clients*conns {
			t.Errorf("Accepted() = %d, want %d", n, clients*conns)
		}
		if pauses < 10 {
			t.Errorf("paused %d times: the test proves nothing", pauses)
		}
		s.Shut()
		wg.Wait()
	}
}

func TestListenerDeadline(t *testing.T) {
	t.Parallel()
	s := sockets.NewTestSocket(t, "tcp", "127.0.0.1:0")
	ln := s.Listener
	if err := ln.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := ln.Accept(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Accept() = %v, want os.ErrDeadlineExceeded", err)
	}
	s.Pause()
	if _, err := ln.Accept(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Accept() while paused = %v, want os.ErrDeadlineExceeded", err)
	}
	if err := ln.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	s.Open()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := ln.Accept(nil)
	if err != nil {
		t.Fatalf("Accept() after the deadline was taken off: %v", err)
	}
	_ = got.Close()
	s.Shut()
	if _, err := ln.Accept(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept() of a shut listener = %v, want net.ErrClosed", err)
	}
	var op *net.OpError
	if _, err := ln.Accept(nil); !errors.As(err, &op) || op.Op != "accept" {
		t.Errorf("Accept() of a shut listener = %#v, want a *net.OpError of accept", err)
	}
}

// TestGateIsIn has a call wait inside before watchEntered is called: as long as no
// connection comes, no other call may enter.
func TestGateIsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		g := sockets.NewGate(sockets.GatePaused, c.setDeadline)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := g.Enter(); err != nil {
				t.Error(err)
				return
			}
			_ = c.block()
			g.Exit()
		})
		synctest.Wait()
		g.Open()
		synctest.Wait()
		select {
		case <-g.WatchEntered():
		default:
			t.Error("a call is inside, and has not entered")
		}
		g.Shut()
		wg.Wait()
	})
}
