package handofftls

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A step is one of a move, at which a process meets its fate.
type step string

// The steps of a successor, and of a predecessor.
const (
	stepUnread   step = "unread"   // the state is in this process, and its program has not got it
	stepReceived step = "received" // the program has the state
	stepMade     step = "made"     // Receive has returned
	stepRead     step = "read"     // a request was read
	stepPartly   step = "partly"   // a half of a record was written
	stepAnswered step = "answered" // an answer was written

	stepStopped step = "stopped writing" // before SendConn
	stepSent    step = "sent"            // SendConn has returned
)

// plans are what a service process does, in its environment.
type plans struct {
	Dir      string // of the control socket
	Addr     string
	Linger   time.Duration
	Step     step
	At       int32 // the connection with which it comes to the step
	Signal   syscall.Signal
	Careless bool // the control: a predecessor serves on what it has sent
}

const envPlans = "BATON_TLS_PLANS"

// The first byte of an answer says whether the connection has moved.
const (
	markNew   = 'n'
	markMoved = 'm'
)

// A report is a line that a service process writes.
type report struct {
	PID                int
	Kind               string // "serving", "fate", "exit"
	Addr               string
	Moved, Doubt, Kept int32
	Err                string
}

// A service returns what it reads, after a mark. Its connections move.
type service struct {
	plans
	up   *handoff.Upgrader
	cfg  *Config
	from <-chan handoff.MovedConn

	serving                               sync.WaitGroup
	received, sending, moved, doubt, kept atomic.Int32
	fate                                  sync.Once
}

func say(r report) {
	r.PID = os.Getpid()
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.Write(append(b, '\n')) // the driver misses it
}

// serviceMain is a process of the service.
func serviceMain([]string) {
	s := &service{}
	if err := s.run(); err != nil {
		say(report{Kind: "exit", Err: err.Error()})
		return
	}
	say(report{Kind: "exit", Moved: s.moved.Load(), Doubt: s.doubt.Load(), Kept: s.kept.Load()})
}

func (s *service) run() error {
	if err := json.Unmarshal([]byte(os.Getenv(envPlans)), &s.plans); err != nil {
		return err
	}
	var err error
	if s.up, err = handoff.New(&handoff.Config{
		Mode: handoff.Takeover, ControlSocket: s.Dir + "/c/s", Probation: -1, LingerTimeout: s.Linger, UpgradeSignals: []os.Signal{},
	}); err != nil {
		return err
	}
	s.cfg = plain()
	if err := s.cfg.Probe(); err != nil {
		return err
	}
	if s.from, err = s.up.Conns(s.cfg.Name("echo")); err != nil {
		return err
	}
	ctx := context.Background()
	ln, err := s.up.Listen(ctx, "tcp", s.Addr)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.accept(ctx, ln) }) // ends after Done
	wg.Go(func() { s.receive(ctx) })    // likewise
	if err := s.up.Ready(); err != nil {
		return err
	}
	say(report{Kind: "serving", Addr: ln.Addr().String()})
	<-s.up.Done()
	wg.Wait()
	err = errors.Join(s.up.Err(), s.up.Shutdown(ctx))
	s.serving.Wait() // a process must not end between its report of a step and the signal
	return err
}

func (s *service) accept(ctx context.Context, ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		s.serving.Go(func() { // ends with the connection
			c, err := Server(ctx, nc, s.cfg)
			if err != nil {
				_ = nc.Close() // the client tells
				return
			}
			s.serve(ctx, c, markNew, false)
		})
	}
}

// receive takes connections until this process is replaced.
func (s *service) receive(ctx context.Context) {
	for {
		if s.Step == stepUnread && s.received.Load() == s.At-1 {
			s.meet(stepUnread, true)
		}
		select {
		case mc := <-s.from:
			at := s.received.Add(1) == s.At
			s.meet(stepReceived, at)
			mc.Conn = s.up.Track(mc.Conn)
			if s.Step == stepPartly && at {
				mc.Conn = &stutter{Conn: mc.Conn, between: func() error { s.meet(stepPartly, true); return nil }}
			}
			c, _, err := Receive(mc, s.cfg)
			if err != nil {
				panic(err)
			}
			s.meet(stepMade, at)
			s.serving.Go(func() { s.serve(ctx, c, markMoved, at) }) // ends with the connection
		case <-s.up.Done():
			return
		}
	}
}

// meet has this process meet its fate, if the step is the one of its plans.
func (s *service) meet(at step, now bool) {
	if !now || at != s.Step {
		return
	}
	s.fate.Do(func() {
		say(report{Kind: "fate"})
		// To this thread: one to the process may be taken by another thread, and this one
		// would run on until then (signal(7)).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.Tgkill(os.Getpid(), unix.Gettid(), s.Signal); err != nil {
			panic(err)
		}
	})
}

// serve answers until the connection ends or moves.
func (s *service) serve(ctx context.Context, c *Conn, mark byte, planned bool) {
	defer c.Close()
	served := make(chan struct{})
	defer close(served)
	go func() {
		select {
		case <-s.up.Done():
			_ = c.SetReadDeadline(time.Unix(1, 0)) // Read tells
		case <-served:
		}
	}()
	buf := make([]byte, maxPlain)
	for moves := true; ; {
		n, err := c.Read(buf)
		switch {
		case err == nil:
			s.meet(stepRead, planned)
			if _, err := c.Write(append([]byte{mark}, buf[:n]...)); err != nil {
				return
			}
			s.meet(stepAnswered, planned)
		case !isTimeout(err):
			return
		}
		if moves && s.over() && c.CanMove() == nil {
			switch err := Send(ctx, &sender{s}, "echo", c, nil); {
			case err == nil:
				s.moved.Add(1)
				return
			case errors.Is(err, handoff.ErrInDoubt):
				s.doubt.Add(1)
				// Whatever the program still tries, the client gets none of it.
				_, _ = c.Write([]byte(lastWords))
				_ = c.CloseWrite()
				return
			}
			s.kept.Add(1)
			moves = false
			if s.Careless {
				_, _ = c.Write([]byte("the predecessor serves on")) // the recorder tells
			}
		}
		if isTimeout(err) {
			limit := time.Time{}
			if moves {
				limit = time.Now().Add(time.Millisecond) // a record is on its way
			}
			_ = c.SetReadDeadline(limit) // Read tells
		}
	}
}

func (s *service) over() bool {
	select {
	case <-s.up.Done():
		return true
	default:
		return false
	}
}

// A sender is the Upgrader, with the steps of a predecessor.
type sender struct{ *service }

func (s *sender) SendConn(ctx context.Context, name string, conn net.Conn, state []byte) error {
	at := s.sending.Add(1) == s.At
	s.meet(stepStopped, at)
	if s.Careless {
		return s.sendCopy(ctx, name, conn, state)
	}
	err := s.up.SendConn(ctx, name, conn, state)
	s.meet(stepSent, at && err == nil)
	return err
}

// sendCopy is the control: the successor gets the connection, and Send does not know.
func (s *sender) sendCopy(ctx context.Context, name string, conn net.Conn, state []byte) error {
	fd, err := fdx.Dup(conn.(syscall.Conn))
	if err != nil {
		return err
	}
	duplicate, err := fdx.Conn(fd, name)
	if err != nil {
		return err
	}
	if err := s.up.SendConn(ctx, name, duplicate, state); err != nil {
		return err
	}
	return fmt.Errorf("%w: which is not true", handoff.ErrNotTaken)
}

// greeted makes the client's handshake and reads a greeting.
func greeted(nc net.Conn) error {
	// crypto/tls of Go 1.25 offers X25519 also where GODEBUG=fips140=only forbids it.
	tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.CurveP256}})
	_, err := io.ReadFull(tc, make([]byte, len(greeting)))
	return err
}

const greeting = "hello"

// probeMain writes whether connections can move in this process, and how one ends here.
func probeMain([]string) {
	cfg := plain()
	r := report{Kind: "probe"}
	if err := cfg.Probe(); err != nil {
		r.Err = err.Error()
	}
	say(r)
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	served := make(chan error, 1)
	go func() {
		c, err := Server(context.Background(), server, cfg)
		if err == nil {
			_, err = c.Write([]byte(greeting))
		}
		if err == nil {
			err = c.CanMove()
		}
		served <- err
	}()
	r = report{Kind: "served"}
	if err := greeted(client); err != nil {
		r.Err = err.Error()
	} else if err := <-served; !errors.Is(err, ErrStays) {
		r.Err = fmt.Sprintf("CanMove() = %v, want ErrStays", err)
	}
	say(r)
}
