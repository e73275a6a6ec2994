package handoff

import "time"

// EventKind says what happened.
type EventKind string

// The events, in the order of an upgrade. The predecessor emits the first group, the
// successor the second.
const (
	EventUpgradeStarted EventKind = "upgrade-started" // the upgrade has begun
	EventWaiting        EventKind = "waiting"         // the predecessor can't start a successor yet; Err says what it waits for
	EventTransfer       EventKind = "transfer"        // sockets and state are being passed on
	EventWarming        EventKind = "warming"         // the successor has them and prepares itself
	EventPaused         EventKind = "paused"          // the successor accepts; probation begins
	EventCommitting     EventKind = "committing"
	EventCommitted      EventKind = "committed"
	EventUpgradeFailed  EventKind = "upgrade-failed" // the predecessor serves on
	EventLingering      EventKind = "lingering"      // this process serves its open connections to their end
	EventStopped        EventKind = "stopped"        // Shutdown is over

	EventJoined          EventKind = "joined"           // this process has received the sockets
	EventReady           EventKind = "ready"            // Accept returns connections from now on
	EventOwner           EventKind = "owner"            // committed: this process owns the sockets
	EventQuit            EventKind = "quit"             // aborted or rolled back
	EventMoved           EventKind = "moved"            // mode Drain: this process has moved to a socket of its own for Address; Err says why not, or why a loss was possible
	EventStored          EventKind = "stored"           // systemd keeps the sockets (see Config.NoStore), or Err says why not
	EventPredecessorDone EventKind = "predecessor-done" // a predecessor has ended its linger
)

// An Event is one step of the Upgrader.
type Event struct {
	Time       time.Time `json:"time"`
	Kind       EventKind `json:"kind"`
	PID        int       `json:"pid"`        // of this process
	Generation uint64    `json:"generation"` // of this process; 0 before it is known
	// Report is that of the upgrade so far; nil if the event belongs to none.
	Report *Report `json:"report,omitempty"`
	// Address is the network and address of the socket, for EventMoved.
	Address string `json:"address,omitempty"`
	// Err is the reason, for EventWaiting, EventUpgradeFailed, EventQuit, EventMoved and
	// EventStored.
	Err error `json:"-"`
	// Reason is Err's text.
	Reason string `json:"reason,omitempty"`
}
