package handoff

import "slices"

// Mode says how a successor gets its sockets. The zero Mode is Takeover where
// [Config] has a Name or a ControlSocket, and Inherit otherwise.
type Mode string

const (
	// Inherit has the predecessor start its successor, which inherits the
	// sockets (fork and exec, by way of tableflip: a service on plain tableflip
	// can be upgraded to Inherit in place, and back). What a successor writes to
	// its standard error before it calls New is not in the error of a failed
	// upgrade, see [UpgradeError].
	Inherit Mode = "inherit"
	// Takeover passes the sockets over a unix socket (SCM_RIGHTS), to a
	// successor that the predecessor starts, or to any other process that is
	// started with the same control socket.
	Takeover Mode = "takeover"
	// Drain is Takeover, and then a move: after the commit the successor gives its
	// TCP and UDP sockets up for sockets of its own, in the same SO_REUSEPORT groups,
	// and leaves those of the predecessor without loss. It is for sockets that have to
	// be made by the process that serves: with the options of its own
	// Config.ListenConfig, on the account of its own container. Several services on
	// one address need no more than Takeover, and reuseport.Control in ListenConfig.
	//
	// Up to the commit nothing differs from Takeover, and a rollback has nothing to
	// undo. The move begins when no other process has duplicates of the sockets: at
	// once for listeners, at the predecessor's Shutdown for datagram sockets, to which
	// it writes answers until then. Connections that wait in an old socket, and
	// handshakes that are under way, come out of Accept like those of the new one. A
	// client that never ends its handshake delays the end of the move, and nothing
	// else: the next upgrade passes old and new sockets on. [EventMoved] says how each
	// address went. Options that are set on a socket by other means than
	// ListenConfig.Control and the methods of [PacketConn] are lost with it.
	//
	// A Listen fails with [ErrUnsupported] where the own socket would not be in the
	// group of the predecessor's: another user, network namespace or device, or no
	// SO_REUSEPORT. MPTCP is off: the kernel can't steer it. In the first process a
	// TCP socket listens from Ready on, so a slow start holds no connection.
	//
	// The kernel chooses the member of a group (reuseport's Hash), except while a
	// process leaves the group. A process that is killed while it leaves can't restore
	// that choice. The first process of a line restores it at Ready, and each move does.
	Drain Mode = "drain"
)

// modes are all modes, in the order of their numbers in messages.
var modes = [...]Mode{"", Inherit, Takeover, Drain}

// number is the mode in messages.
func (m Mode) number() uint32 { return uint32(slices.Index(modes[:], m)) }
