package sockets

import (
	"cmp"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// aLongTimeAgo is a deadline that has passed: it makes a blocked Accept or
// Read return without touching the socket.
var aLongTimeAgo = time.Unix(1, 0)

type gateState int32

const (
	gatePaused gateState = iota // callers wait
	gateOpen                    // callers pass
	gateShut                    // callers get net.ErrClosed
)

// A gate lets goroutines into a blocking call on a socket, or has them wait before
// it, without closing the socket. pause returns when no goroutine is inside any more;
// the result of a call until then goes to its caller, so no connection that was
// accepted is lost.
//
// An open gate costs two atomic additions and no lock.
type gate struct {
	state  atomic.Int32
	inside atomic.Int64
	// interrupt sets the socket's deadline; one in the past makes the calls inside
	// return (net.Listener's SetDeadline).
	interrupt func(time.Time) error
	op        string // of the errors of enter
	addr      net.Addr

	mu       sync.Mutex
	deadline time.Time     // the user's own
	why      error         // what a shut gate says in place of net.ErrClosed
	poked    bool          // the socket has a deadline in the past: see poke
	turning  int           // likewise: see turnAway
	changed  chan struct{} // closed and replaced whenever state or deadline change
	empty    chan struct{} // closed by the last exit; nil if no drain waits for it
	entered  chan struct{} // closed when the first call goes in after the gate opened
	waiting  atomic.Bool   // entered is to be closed
}

// newGate returns a gate that is paused, before calls on the socket at addr.
func newGate(op string, addr net.Addr, interrupt func(time.Time) error) *gate {
	return &gate{interrupt: interrupt, op: op, addr: addr, changed: make(chan struct{})}
}

// enter waits until the gate is open. Each enter that returns nil is followed
// by one exit. It returns errPoked where the gate is paused and poked. Any other error
// is a [net.OpError] with net.ErrClosed at a shut gate, or with
// os.ErrDeadlineExceeded where the user's deadline passes before it opens.
func (g *gate) enter() error {
	for {
		g.inside.Add(1)
		// pause stores the state first and then loads inside, so that one of the two
		// sees the other.
		if gateState(g.state.Load()) == gateOpen {
			if g.waiting.Load() {
				g.noteEntered()
			}
			return nil
		}
		g.exit()
		switch err := g.wait(); err {
		case nil:
		case errPoked:
			return err
		default:
			return g.opError(err)
		}
	}
}

func (g *gate) opError(err error) error {
	return &net.OpError{Op: g.op, Net: g.addr.Network(), Addr: g.addr, Err: err}
}

// exit ends a call.
func (g *gate) exit() {
	if g.inside.Add(-1) == 0 && gateState(g.state.Load()) != gateOpen {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.empty != nil && g.inside.Load() == 0 {
			close(g.empty)
			g.empty = nil
		}
	}
}

// wait blocks while the gate is paused.
func (g *gate) wait() error {
	for {
		g.mu.Lock()
		state, deadline, changed, poked, why := gateState(g.state.Load()), g.deadline, g.changed, g.poked || g.turning > 0, g.why
		g.mu.Unlock()
		switch {
		case state == gateOpen:
			return nil
		case state == gateShut:
			return cmp.Or(why, net.ErrClosed)
		case poked:
			return errPoked
		}
		if deadline.IsZero() {
			<-changed
			continue
		}
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		t := time.NewTimer(left)
		select {
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}

// again reports whether a call that came back with a deadline error should be
// tried once more: the deadline was ours, not the user's.
func (g *gate) again() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.deadline.IsZero() || time.Now().Before(g.deadline)
}

// pause has new callers wait, and returns when no goroutine is inside.
func (g *gate) pause() {
	g.set(gatePaused)
	g.drain()
}

// drain returns when no goroutine is inside of a gate that is not open.
func (g *gate) drain() {
	g.mu.Lock()
	if g.inside.Load() == 0 || gateState(g.state.Load()) == gateOpen {
		g.mu.Unlock()
		return
	}
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	g.mu.Unlock()
	<-empty
}

// open lets callers in.
func (g *gate) open() { g.set(gateOpen) }

// shut turns all callers away for good.
func (g *gate) shut() { g.set(gateShut) }

// fail is shut for a socket that can't serve: callers get err.
func (g *gate) fail(err error) {
	g.mu.Lock()
	g.why = err
	g.mu.Unlock()
	g.shut()
}

// set changes the state; a shut gate stays shut.
func (g *gate) set(s gateState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if gateState(g.state.Load()) == gateShut {
		return
	}
	if s == gateOpen {
		_ = g.interrupt(g.limitLocked()) // fails only on a closed socket, which Accept reports
		g.state.Store(int32(s))
	} else {
		g.state.Store(int32(s))
		_ = g.interrupt(aLongTimeAgo)
	}
	g.notifyLocked()
}

// interruptBy sets what ends the calls inside, of which there must be none.
func (g *gate) interruptBy(f func(time.Time) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.interrupt = f
}

// setDeadline sets the user's deadline.
func (g *gate) setDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = t
	g.notifyLocked()
	if gateState(g.state.Load()) != gateOpen {
		return nil // it takes effect when the gate opens
	}
	return g.interrupt(g.limitLocked())
}

// errPoked says that there is something in the queue, although the gate is paused, or that
// some calls are turned away.
var errPoked = errors.New("the gate is poked")

// poke interrupts the calls inside, and lets no call wait at the gate or in the kernel,
// while it is on: the queue has something for them.
func (g *gate) poke(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.poked = on
	g.interruptLocked()
}

// interruptLocked has the calls inside, and those that wait, look again.
func (g *gate) interruptLocked() {
	g.notifyLocked()
	if gateState(g.state.Load()) == gateOpen {
		_ = g.interrupt(g.limitLocked()) // as in set
	}
}

// limitLocked is the deadline of the socket while the gate is open.
func (g *gate) limitLocked() time.Time {
	if g.poked || g.turning > 0 {
		return aLongTimeAgo
	}
	return g.deadline
}

func (g *gate) notifyLocked() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// watchEntered returns a channel that is closed when a call has gone in, or is in.
func (g *gate) watchEntered() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.entered == nil {
		g.entered = make(chan struct{})
		g.waiting.Store(true)
		// A call that has gone in before stays there until a connection comes.
		if g.inside.Load() > 0 && gateState(g.state.Load()) == gateOpen {
			g.waiting.Store(false)
			close(g.entered)
		}
	}
	return g.entered
}

func (g *gate) noteEntered() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting.CompareAndSwap(true, false) {
		close(g.entered)
	}
}
