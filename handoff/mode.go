package handoff

import "slices"

// Mode is the way in which a successor gets its sockets. [Config] says what the zero Mode
// is.
type Mode string

const (
	// Inherit has the predecessor start its successor, which inherits the
	// sockets (fork and exec, by way of tableflip). A service on plain tableflip can be
	// upgraded to Inherit in place, and back. [UpgradeError] says which part of the
	// successor's standard error it has in this mode.
	Inherit Mode = "inherit"
	// Takeover passes the sockets over a unix socket (SCM_RIGHTS), to a
	// successor that the predecessor starts, or to any other process that has the same
	// control socket in its Config.
	Takeover Mode = "takeover"
	// Drain is Takeover until the commit. Then the successor moves: it binds TCP and UDP
	// sockets of its own in the predecessor's SO_REUSEPORT groups, and leaves the
	// predecessor's sockets without loss. It is for services in which the process that
	// serves has to make the sockets: with the options of its own Config.ListenConfig, or
	// so that the kernel counts their memory for its own container. For several services
	// on one address, Takeover with reuseport.Control in ListenConfig is enough.
	//
	// A rollback has no move to undo. The move begins when no other process has
	// duplicates of the old sockets: for listeners right after the commit, for datagram
	// sockets at the predecessor's Shutdown, because the predecessor writes answers to
	// them until then. Accept returns the connections of both sockets, those that wait in
	// the old one or whose handshake is under way included. A client that never ends its
	// handshake delays only the end of the move: the next upgrade passes old and new
	// sockets on. [EventMoved] reports the result for each address. The new socket does
	// not have the options that a program has set on the old one by other means than
	// ListenConfig.Control and the methods of [PacketConn].
	//
	// Listen fails with [ErrUnsupported] if the new socket would not be in the group of
	// the predecessor's: the two processes differ in user, network namespace or device,
	// or the predecessor's socket has no SO_REUSEPORT. MPTCP is off, because the kernel
	// can't steer it. In the first process a TCP socket listens only from Ready on, so
	// that no connection waits for a slow start.
	//
	// The kernel chooses the member of the group that gets a connection (reuseport's
	// Hash), except while a process leaves the group. A process that is killed while it
	// leaves can't restore that choice. The first process of a line restores it at Ready,
	// and each move restores it.
	Drain Mode = "drain"
)

// modes are all modes, in the order of their numbers in messages.
var modes = [...]Mode{"", Inherit, Takeover, Drain}

// number is the mode in messages.
func (m Mode) number() uint32 { return uint32(slices.Index(modes[:], m)) }
