package handoff

import "time"

// EventKind says what happened.
type EventKind string

// The events, in the order in which an upgrade brings them. The first group is
// seen by the predecessor, the second by the successor.
const (
	EventUpgradeStarted EventKind = "upgrade-started" // a successor is on its way
	EventWaiting        EventKind = "waiting"         // before it starts a successor, for what Err says
	EventTransfer       EventKind = "transfer"        // sockets and state are being passed on
	EventWarming        EventKind = "warming"         // the successor has them and prepares itself
	EventPaused         EventKind = "paused"          // the successor accepts; probation begins
	EventCommitting     EventKind = "committing"
	EventCommitted      EventKind = "committed"
	EventUpgradeFailed  EventKind = "upgrade-failed" // the predecessor serves on
	EventLingering      EventKind = "lingering"      // this process serves its open connections to their end
	EventStopped        EventKind = "stopped"        // Shutdown is over

	EventJoined          EventKind = "joined"           // this process has received the sockets
	EventReady           EventKind = "ready"            // the Accept gate is open
	EventOwner           EventKind = "owner"            // committed: this process is the one that serves
	EventQuit            EventKind = "quit"             // aborted or rolled back
	EventMoved           EventKind = "moved"            // mode Drain: the sockets of an address are this process's own; Err says why not, or why a loss was possible
	EventStored          EventKind = "stored"           // systemd keeps the sockets (see Config.NoStore), or Err says why not
	EventPredecessorDone EventKind = "predecessor-done" // a predecessor has ended its linger
)

// An Event is one step of the Upgrader.
type Event struct {
	Time       time.Time `json:"time"`
	Kind       EventKind `json:"kind"`
	PID        int       `json:"pid"`        // of this process
	Generation uint64    `json:"generation"` // of this process; 0 before it is known
	// Report is the account of the upgrade so far, where there is one.
	Report *Report `json:"report,omitempty"`
	// Address is the network and address of the socket, for EventMoved.
	Address string `json:"address,omitempty"`
	// Err is the reason, for EventWaiting, EventUpgradeFailed, EventQuit, EventMoved and
	// EventStored.
	Err error `json:"-"`
	// Reason is Err's text.
	Reason string `json:"reason,omitempty"`
}
