package wire

import (
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// Type says which message a frame holds. Numbers are never reused.
type Type uint16

// The messages of the conversation. Types from 64 on belong to the requests
// that an operator's tool sends to the control socket.
const (
	TypeHello Type = 1 + iota
	TypeWelcome
	TypeRefuse
	TypeSockets
	TypeStates
	TypeAck
	TypeVerified
	TypeReady
	TypePaused
	TypePing
	TypeAlive
	TypeCommit
	TypeCommitted
	TypeAbort
	TypeRollback
	TypeRolledBack
	TypeTook
	TypeConns
	TypeLinger
	TypeEndLinger
	TypeBye
	TypeAdopt
	TypeStderr
	TypeReleased
	TypeAccount
	TypeTaking

	TypeRequest  Type = 64
	TypeResponse Type = 65
)

// Message is one message of the conversation: a pointer to one of the structs
// of this package.
type Message interface {
	// Type returns the number that names the message on the wire.
	Type() Type
}

// Via says how the conversation began.
type Via uint32

const (
	ViaDial    Via = iota // the successor dialled the control socket
	ViaSpawn              // the predecessor started it with the conversation as an inherited descriptor
	ViaInherit            // the predecessor started it through tableflip; the sockets are inherited, not sent
)

// Hello opens a conversation: successor to predecessor.
type Hello struct {
	MinVersion uint32 `wire:"1"`       // oldest protocol version the successor speaks
	MaxVersion uint32 `wire:"2"`       // newest protocol version the successor speaks
	PID        int64  `wire:"3"`       // as the successor sees itself; 0 if it can't tell
	Build      string `wire:"4,build"` // the successor's Config.Version
	Via        Via    `wire:"5"`
	Mode       uint32 `wire:"6"` // handoff.Mode of the successor
}

// Welcome answers Hello. Its descriptor, if there is one, is the predecessor's pidfd.
type Welcome struct {
	Version      uint32        `wire:"1"` // protocol version chosen
	Generation   uint64        `wire:"2"` // of the predecessor
	PID          int64         `wire:"3"`
	Build        string        `wire:"4,build"`
	Mode         uint32        `wire:"5"`       // handoff.Mode of the predecessor
	Sockets      uint32        `wire:"6"`       // entries that follow in Sockets messages
	States       uint32        `wire:"7"`       // entries that follow in States messages
	Probation    time.Duration `wire:"8"`       // time between Ready and Commit
	HangTimeout  time.Duration `wire:"9"`       // silence after which the peer counts as hung
	ReadyTimeout time.Duration `wire:"10"`      // time from here to Ready; 0 means no limit
	Name         string        `wire:"11,name"` // the predecessor's Config.Name
}

// Refuse answers Hello where no conversation begins, or any message where the
// predecessor can't continue.
type Refuse struct {
	Reason failure.Reason `wire:"1"`
	Text   string         `wire:"2,text"`
}

// SocketKind says what a descriptor of the manifest is.
type SocketKind uint32

const (
	KindListener SocketKind = 1 + iota
	KindPacket
	KindFile
	KindControl // the listener of the control socket itself
	KindLane    // a lane of package flows, or, without a SockType, the table of the lanes, or, if it listens, their rendezvous
)

// Sent reports whether descriptors of a kind come with the manifest whatever the Via. A
// lane must not go through tableflip, whose os.File registers it with the poller.
func (k SocketKind) Sent() bool { return k == KindLane }

// Socket is the manifest's description of one descriptor.
type Socket struct {
	Kind      SocketKind `wire:"1"`
	Name      string     `wire:"2,name"`      // of a named socket or a file; else empty
	Network   string     `wire:"3,network"`   // as asked for
	Address   string     `wire:"4,address"`   // as asked for
	Shard     uint32     `wire:"5"`           // position among the sockets with the same Name, Network and Address
	Bound     string     `wire:"6,address"`   // the address it has, as net prints it
	Domain    int32      `wire:"7"`           // SO_DOMAIN
	SockType  int32      `wire:"8"`           // SO_TYPE
	Protocol  int32      `wire:"9"`           // SO_PROTOCOL
	Listening bool       `wire:"10"`          // SO_ACCEPTCONN
	Sockname  []byte     `wire:"11,sockname"` // the kernel's sockaddr, as getsockname(2) gives it
	FileMode  uint32     `wire:"12"`          // st_mode of a file; 0 for a socket
	PathDev   uint64     `wire:"13"`          // device and inode of the path that a unix socket is bound to
	PathIno   uint64     `wire:"14"`
	Keeper    Keeper     `wire:"15"` // that has it as well
	Leaving   bool       `wire:"16"` // it is closed when nothing waits in it: another one on its address takes its place
}

// Keeper names what has a socket besides the processes that pass it on.
type Keeper uint32

// The keepers. A reader takes one that it does not know for KeeperNone.
const (
	KeeperNone  Keeper = iota
	KeeperUnit         // a socket unit of systemd's, or another sender of LISTEN_FDS
	KeeperStore        // systemd's descriptor store, under a name that follows from the entry
)

// Sockets carries a part of the manifest and, in the same frame, the
// descriptors of its entries, one each and in order (with ViaInherit only those that are
// [SocketKind.Sent]).
type Sockets struct {
	Seq     uint32   `wire:"1"` // answered by Ack
	First   uint32   `wire:"2"` // index of the first entry in the whole manifest
	Entries []Socket `wire:"3"`
}

// State describes one state blob.
type State struct {
	Name string `wire:"1,name"`
	Size uint64 `wire:"2"`
}

// States carries state blobs: a sealed memfd for each entry.
type States struct {
	Seq     uint32  `wire:"1"`
	Entries []State `wire:"2"`
}

// Ack acknowledges a Sockets, States, Conns or Adopt message.
type Ack struct {
	Seq   uint32 `wire:"1"`
	Taken uint32 `wire:"2"` // how many entries, from the first on, the receiver keeps
}

// Verified ends the transfer: each descriptor was checked.
type Verified struct{}

// Ready says that the successor's Accept gate is open.
type Ready struct {
	Conns []string `wire:"1,name"` // names under which the successor takes open connections
	Tells bool     `wire:"2"`      // the successor sends Taking
	// Left are the sockets that the successor does not serve, by Kind, Name, Network,
	// Address and Shard: the predecessor serves them to the end of what is in them.
	Left     []Socket `wire:"3"`
	Warnings []string `wire:"4,text"` // for the report
}

// Paused says that the predecessor has stopped accepting.
type Paused struct {
	Queue    int64  `wire:"1"` // connections in the accept queues; -1 if not known
	HalfOpen int64  `wire:"2"` // handshakes under way; -1 if not known
	Accepted uint64 `wire:"3"` // connections accepted by the predecessor since the upgrade began
}

// Ping asks the successor for Alive.
type Ping struct {
	Seq   uint64 `wire:"1"`
	Final bool   `wire:"2"` // Commit follows the answer
}

// Alive answers Ping after the successor's own health check.
type Alive struct {
	Seq      uint64 `wire:"1"`
	Accepted uint64 `wire:"2"` // connections accepted by the successor so far
}

// Commit is the point of no return.
type Commit struct{}

// Committed confirms Commit.
type Committed struct {
	Accepted uint64   `wire:"1"`
	Warnings []string `wire:"2,text"` // for the report
}

// Abort is the successor's refusal; it ends the conversation.
type Abort struct {
	Text string `wire:"1,text"`
}

// Rollback is the predecessor's withdrawal; it accepts again.
type Rollback struct {
	Text string `wire:"1,text"`
}

// RolledBack confirms Rollback.
type RolledBack struct {
	Accepted uint64 `wire:"1"`
	Unready  string `wire:"2,text"` // what the program had asked for, if it had not called Ready
}

// Took says that the successor owns the sockets, because the predecessor was silent for
// too long.
type Took struct{}

// Conn describes one open connection that moves.
type Conn struct {
	Name  string `wire:"1,name"` // chosen by the protocol that moves it
	State []byte `wire:"2,state"`
}

// Conns carries open connections, a descriptor for each entry. The sender keeps
// the whole within MaxPayload, see EntryOverhead.
type Conns struct {
	Seq     uint32 `wire:"1"`
	Entries []Conn `wire:"2"`
}

// Taking says that the receiver of a Conns message is about to give an entry, and those
// before it, to its program. Whether the program has them is not known before the Ack.
type Taking struct {
	Seq   uint32 `wire:"1"` // of the Conns message
	Index uint32 `wire:"2"` // of the entry
}

// Linger reports the predecessor's progress after Commit.
type Linger struct {
	Open      uint64        `wire:"1"` // connections still open
	Moved     uint64        `wire:"2"` // connections passed to the successor
	Cut       uint64        `wire:"3"` // connections closed by force
	Remaining time.Duration `wire:"4"` // until the linger limit; negative if there is none
}

// EndLinger asks a lingering predecessor to end now.
type EndLinger struct {
	Text string `wire:"1,text"`
}

// Bye is the predecessor's last message.
type Bye struct {
	Open  uint64   `wire:"1"`
	Moved uint64   `wire:"2"`
	Cut   uint64   `wire:"3"`
	CutBy []Reason `wire:"4"` // Cut, by reason
}

// Reason counts connections that were cut for one reason.
type Reason struct {
	Text  string `wire:"1,name"`
	Count uint64 `wire:"2"`
}

// Adopt passes on the conversation with an older predecessor that still
// lingers; its connection is the frame's descriptor.
type Adopt struct {
	Seq        uint32 `wire:"1"`
	Version    uint32 `wire:"2"` // protocol version of that conversation
	Generation uint64 `wire:"3"`
	PID        int64  `wire:"4"`
	Build      string `wire:"5,build"`
}

// Stderr carries three descriptors: the standard error that the successor has after the
// upgrade, and the read and the write end of the pipe through which the predecessor
// reads it until then.
type Stderr struct{}

// Released says, after Commit, that the predecessor has closed its duplicates of
// all TCP and UDP sockets of a kind: listeners at once, datagram sockets at its
// Shutdown, for answers are written to them until then. Other processes may still
// have duplicates, successors that were rolled back for one: the frame has a pidfd
// of each.
type Released struct {
	Kind    SocketKind `wire:"1"`
	Holders uint32     `wire:"2"` // the number of those processes
}

// Account tells the successor, after Commit, how the last upgrades of its line
// went, this one included. Nothing answers it.
type Account struct {
	Body []byte `wire:"1,body"` // JSON: reports and totals
}

// Request is an operator's request to the control socket: the first message of
// a connection of its own, in which others may follow.
type Request struct {
	Op         string `wire:"1,op"`
	Body       []byte `wire:"2,body"` // JSON, see package operate
	MinVersion uint32 `wire:"3"`      // oldest protocol version that the operator's tool speaks
	MaxVersion uint32 `wire:"4"`      // newest protocol version that the operator's tool speaks
	Name       string `wire:"5,name"` // of the service that the tool means; empty if it does not say
}

// Response answers a Request; several may follow one Request, the last one is
// Final. What can't be answered at all is answered by Refuse.
type Response struct {
	Final   bool   `wire:"1"`
	Body    []byte `wire:"2,body"` // JSON, see package operate
	Version uint32 `wire:"3"`      // protocol version chosen
}

func (*Hello) Type() Type      { return TypeHello }
func (*Welcome) Type() Type    { return TypeWelcome }
func (*Refuse) Type() Type     { return TypeRefuse }
func (*Sockets) Type() Type    { return TypeSockets }
func (*States) Type() Type     { return TypeStates }
func (*Ack) Type() Type        { return TypeAck }
func (*Verified) Type() Type   { return TypeVerified }
func (*Ready) Type() Type      { return TypeReady }
func (*Paused) Type() Type     { return TypePaused }
func (*Ping) Type() Type       { return TypePing }
func (*Alive) Type() Type      { return TypeAlive }
func (*Commit) Type() Type     { return TypeCommit }
func (*Committed) Type() Type  { return TypeCommitted }
func (*Abort) Type() Type      { return TypeAbort }
func (*Rollback) Type() Type   { return TypeRollback }
func (*RolledBack) Type() Type { return TypeRolledBack }
func (*Took) Type() Type       { return TypeTook }
func (*Conns) Type() Type      { return TypeConns }
func (*Linger) Type() Type     { return TypeLinger }
func (*EndLinger) Type() Type  { return TypeEndLinger }
func (*Bye) Type() Type        { return TypeBye }
func (*Adopt) Type() Type      { return TypeAdopt }
func (*Stderr) Type() Type     { return TypeStderr }
func (*Released) Type() Type   { return TypeReleased }
func (*Account) Type() Type    { return TypeAccount }
func (*Taking) Type() Type     { return TypeTaking }
func (*Request) Type() Type    { return TypeRequest }
func (*Response) Type() Type   { return TypeResponse }
