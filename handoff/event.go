package handoff

import (
	"sync"
	"time"
)

// EventKind says what happened.
type EventKind string

// The events, in the order in which an upgrade brings them. The first group is
// seen by the predecessor, the second by the successor.
const (
	EventUpgradeStarted EventKind = "upgrade-started" // a successor is on its way
	EventTransfer       EventKind = "transfer"        // sockets and state are being passed on
	EventWarming        EventKind = "warming"         // the successor has them and prepares itself
	EventPaused         EventKind = "paused"          // the successor accepts; probation begins
	EventCommitting     EventKind = "committing"
	EventCommitted      EventKind = "committed"
	EventUpgradeFailed  EventKind = "upgrade-failed" // the predecessor serves on
	EventLingering      EventKind = "lingering"      // open connections go on
	EventStopped        EventKind = "stopped"        // this process is done

	EventJoined          EventKind = "joined"           // the sockets have come
	EventReady           EventKind = "ready"            // the Accept gate is open
	EventOwner           EventKind = "owner"            // committed: this process is the one that serves
	EventQuit            EventKind = "quit"             // aborted or rolled back
	EventStored          EventKind = "stored"           // systemd keeps the sockets (see Config.NoStore), or Err says why not
	EventPredecessorDone EventKind = "predecessor-done" // one has ended its linger
)

// An Event tells what happened to the Upgrader.
type Event struct {
	Time       time.Time `json:"time"`
	Kind       EventKind `json:"kind"`
	PID        int       `json:"pid"`        // of this process
	Generation uint64    `json:"generation"` // of this process; 0 before it is known
	// Report is the account of the upgrade so far, where there is one.
	Report *Report `json:"report,omitempty"`
	// Err is why, for EventUpgradeFailed, EventQuit and EventStored.
	Err error `json:"-"`
	// Reason is Err's text.
	Reason string `json:"reason,omitempty"`
}

// events hands events to a hook, in order, from one goroutine, without ever
// making the sender wait.
type events struct {
	hook func(Event)

	mu     sync.Mutex
	queue  []Event
	wake   chan struct{} // capacity 1
	closed bool
}

func newEvents(hook func(Event)) *events {
	return &events{hook: hook, wake: make(chan struct{}, 1)}
}

func (e *events) emit(ev Event) {
	if e.hook == nil {
		return
	}
	e.mu.Lock()
	if !e.closed {
		e.queue = append(e.queue, ev)
	}
	e.mu.Unlock()
	e.signal()
}

// close ends run once the queue is empty.
func (e *events) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.signal()
}

func (e *events) signal() {
	select {
	case e.wake <- struct{}{}:
	default: // it is awake already
	}
}

func (e *events) run() {
	for {
		e.mu.Lock()
		queue, closed := e.queue, e.closed
		e.queue = nil
		e.mu.Unlock()
		for _, ev := range queue {
			e.hook(ev)
		}
		if len(queue) == 0 {
			if closed {
				return
			}
			<-e.wake
		}
	}
}
