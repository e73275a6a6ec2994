package sockets

import (
	"sync"
	"sync/atomic"
)

// turnedAway are calls that end before those of others on the same socket. A nil one is
// never closed.
type turnedAway struct {
	inside atomic.Int64
	shut   atomic.Bool
	once   sync.Once
	gone   chan struct{} // closed when it is shut and no call is inside
}

func (t *turnedAway) enter() { t.inside.Add(1) }

func (t *turnedAway) exit() {
	if t.inside.Add(-1) == 0 && t.shut.Load() {
		t.once.Do(func() { close(t.gone) })
	}
}

// close turns away the calls to come. It reports false if it was closed before.
func (t *turnedAway) close() bool { return !t.shut.Swap(true) }

func (t *turnedAway) closed() bool { return t != nil && t.shut.Load() }

// turnAway returns when the calls of t, which is closed, have left the gate and what waits
// before it. Other calls go on.
func (g *gate) turnAway(t *turnedAway) {
	if t.inside.Load() == 0 {
		return
	}
	turn := func(n int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.turning += n
		g.interruptLocked()
	}
	turn(1)
	<-t.gone
	turn(-1)
}
