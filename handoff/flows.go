package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/flows"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// MaxKeptFlows is the number of flows without an ID that one address can have, see
// [Flows.Keep]. Where the sysctl net.core.optmem_max is 20480, the default of older
// kernels, the number is about 400; with 131072 it is MaxKeptFlows.
const MaxKeptFlows = flows.MaxKept

// A FlowIDs says where a datagram has the ID of its flow, if the server has chosen that
// ID. The zero FlowIDs is a protocol without such IDs.
type FlowIDs struct {
	// Len is the length in bytes of each ID that the server chooses, from 3 on.
	Len int
	// Forms are the kinds of datagrams, up to 8. The first that fits counts.
	Forms []FlowForm
}

// A FlowForm is one kind of datagram of a protocol.
type FlowForm struct {
	// A datagram has this form if its first byte, masked by Mask, is Value.
	Mask, Value byte
	// LenAt is the offset of a byte that has the length of the ID. An ID of another length
	// than FlowIDs.Len is one that a client has chosen. Zero means that each datagram of
	// the form has an ID of the server's.
	LenAt int
	// At is the offset of the ID.
	At int
}

// A FlowConfig describes the flows of an address. The zero value is that of a protocol
// without IDs.
type FlowConfig struct {
	// IDs say where datagrams have IDs that the server has chosen. All processes of the
	// line have to say the same.
	IDs FlowIDs
	// Lanes is the number of sockets of the address, from 3 to 32: one for each process
	// that serves flows, the next successor included. So Lanes-2 predecessors can linger.
	// The first process of the line decides. Zero means 8.
	Lanes int
}

// Flows is a UDP address whose flows stay with their process: see
// [Upgrader.ListenFlows].
type Flows struct {
	u   *Upgrader
	set *flows.Set
}

// ListenFlows returns the UDP address of the predecessor for a protocol that has
// connections, such as QUIC, DTLS or a tunnel, or binds it. The networks are udp, udp4 and
// udp6. From Ready on this process gets the datagrams of new flows, and its predecessor
// those of the flows that it has, until it calls [Upgrader.Shutdown]. After a rollback
// the predecessor gets new flows again, and this process those that it has. After the end
// of a process, the current one gets the datagrams of its flows.
//
// For that the address has several sockets, its lanes, in one SO_REUSEPORT group, and each
// process reads one. All processes have all of them. A program in the kernel chooses the
// lane of a datagram (SO_ATTACH_REUSEPORT_CBPF, socket(7)); that needs no privilege, and
// costs no time that can be measured. It knows a flow by an ID that [Flows.Mark] has
// marked, or by a client's address that [Flows.Keep] has kept. ListenFlows and Ready
// verify by probes that the program is in effect. [Status] and [Report] show the lanes.
//
// If the predecessor, or systemd, has a socket of [Upgrader.ListenPacket] on the address,
// that becomes one of the lanes. Other processes can't have sockets on the address:
// EADDRINUSE. If the process that serves has ended without a successor while predecessors
// linger, a process of the same user that starts anew gets the lanes from one of them, and
// gets new flows when ListenFlows returns. systemd's descriptor store does not get the
// lanes.
//
// The upgrade does not wait for flows, and does not count them: use [Upgrader.Hold]. No
// upgrade can begin while all lanes have processes: [ErrInProgress].
//
// [ErrUnsupported] says that the mode is Drain, that the kernel takes no such program, or
// that another process has one on the address. [ErrMismatch] says that the predecessor
// describes IDs in another way. The errors of binding are those of package net.
func (u *Upgrader) ListenFlows(ctx context.Context, network, address string, cfg FlowConfig) (*Flows, error) {
	k := flows.Key{Network: network, Address: address}
	set, err := u.listenFlows(ctx, k, &cfg)
	if err != nil {
		return nil, fmt.Errorf("handoff: flows %v: %w", k, err)
	}
	return &Flows{u, set}, nil
}

func (u *Upgrader) listenFlows(ctx context.Context, k flows.Key, cfg *FlowConfig) (*flows.Set, error) {
	if err := u.mayListen(); err != nil {
		return nil, err
	}
	switch {
	case u.cfg.Mode == Drain:
		return nil, fmt.Errorf("%w: in mode drain a successor has sockets of its own, and flows stay with sockets that all processes have: use mode takeover or inherit", ErrUnsupported)
	case k.Network != "udp" && k.Network != "udp4" && k.Network != "udp6":
		return nil, fmt.Errorf("%w: the networks are udp, udp4 and udp6", ErrUnsupported)
	}
	c := flows.Choice{Lanes: cfg.Lanes, IDs: flows.IDs{Len: cfg.IDs.Len}}
	for _, f := range cfg.IDs.Forms {
		c.IDs.Forms = append(c.IDs.Forms, flows.Form(f))
	}
	var found sockets.Handle
	find := func() (syscall.Conn, bool, error) {
		packet := sockets.Key{Kind: wire.KindPacket, Network: k.Network, Address: k.Address}
		h, origin, err := u.match(packet)
		if err != nil || h == nil {
			return nil, false, err
		}
		found = h
		if u.engine != nil {
			err = u.engine.Forget(&wire.Socket{Kind: wire.KindPacket, Network: k.Network, Address: k.Address})
		}
		ofProcess := origin.Entry == nil || origin.Entry.Keeper == wire.KeeperNone // not systemd's alone
		return h, ofProcess || u.successor != nil, err
	}
	set, err := u.flows.Listen(ctx, u.cfg.listenConfig, k, c, find)
	if found != nil {
		_ = found.Close() // lane 0 is a duplicate
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		packet := sockets.Key{Kind: wire.KindPacket, Network: k.Network, Address: k.Address}
		err = fmt.Errorf("%w: %s", err, occupied(packet))
	}
	return set, err
}

// Conn returns the socket of this process. It is a plain UDP socket: the program may set
// its options, and reads it for as long as it has flows. Shutdown closes it.
func (f *Flows) Conn() *net.UDPConn { return f.set.Conn() }

// Mark makes id, which the program has filled with random bytes, the ID of a flow of this
// process: it changes the first byte. One ID does not show its process, but an observer of
// many IDs can compute which of them have the same. It returns an error if id has another
// length than FlowIDs.Len.
func (f *Flows) Mark(id []byte) error { return f.set.Mark(id) }

// Keep has the datagrams of a client stay with this process, by the client's address and
// port, until Forget: for flows whose datagrams have no ID of the server's. The program
// calls it when it accepts a flow. The processes that have lanes can keep
// [MaxKeptFlows] together, or as many as the kernel's program can know; beyond that Keep
// returns an error that matches [ErrUnsupported]. A client whose address changes is a new
// one.
func (f *Flows) Keep(client netip.AddrPort) error { return f.set.Keep(client) }

// Forget ends what Keep began.
func (f *Flows) Forget(client netip.AddrPort) error { return f.set.Forget(client) }

// Close closes the address for good: no successor gets it.
func (f *Flows) Close() error { return f.u.flows.Remove(f.set) }

// A FlowStatus describes an address of [Upgrader.ListenFlows].
type FlowStatus struct {
	Network string `json:"network"`
	Address string `json:"address"`
	// Strategy is how datagrams find their process: "lanes", and what they can't do and
	// why: "not verified" by probes, "not for a process that starts anew" after a crash.
	Strategy string `json:"strategy"`
	Lanes    int    `json:"lanes"`   // all
	Lane     int    `json:"lane"`    // of this process; in a Report, the predecessor's
	Current  int    `json:"current"` // that of the process that gets new flows; -1 if it is not known
	Used     []int  `json:"used"`    // those that processes have
	Kept     int    `json:"kept"`    // flows of this process that Keep has kept
}

// flowStatus describes all addresses with flows; nil if there is none.
func (u *Upgrader) flowStatus() []FlowStatus {
	var all []FlowStatus
	for _, s := range u.flows.Status() {
		st := FlowStatus{
			Network: s.Network, Address: s.Address, Strategy: "lanes",
			Lanes: s.Lanes, Lane: s.Lane, Current: s.Current, Used: s.Used, Kept: s.Kept,
		}
		if s.Unverified != "" {
			st.Strategy += ", not verified: " + s.Unverified
		}
		if s.Alone != "" {
			st.Strategy += ", not for a process that starts anew: " + s.Alone
		}
		all = append(all, st)
	}
	return all
}

// takeFlows has this process get new flows, or says why it does not.
func (u *Upgrader) takeFlows() {
	if err := u.flows.Serve(); err != nil {
		u.log.Error("this process does not get new flows", "error", err)
	}
}

// leaveFlows gives new flows back to the predecessor, unless that has taken them.
func (u *Upgrader) leaveFlows() {
	if err := u.flows.Undo(); err != nil {
		u.log.Error("new flows were not given back to the predecessor", "error", err)
	}
}

// passFlows adds the lanes to a manifest. The caller closes their descriptors, which are
// duplicates.
func (u *Upgrader) passFlows() []flows.Item {
	items, err := u.flows.Items()
	if err != nil {
		u.log.Error("the lanes of flows are not passed on", "error", err)
	}
	return items
}

// flowsLeft returns the texts of addresses whose flows the program has not asked for, and
// how many the predecessor has.
func (u *Upgrader) flowsLeft() (names []string, all int) {
	for _, e := range u.flows.Left() {
		names = append(names, "flows of "+e.Network+" "+e.Bound)
	}
	return names, len(names) + u.flows.Joined()
}

// besideFlows says in err, of a bind, that the predecessor has lanes there that the program
// has not asked for.
func (u *Upgrader) besideFlows(k sockets.Key, err error) error {
	at := sockets.PlaceOf(k.Network, k.Address)
	if k.Kind == wire.KindPacket && errors.Is(err, syscall.EADDRINUSE) && slices.ContainsFunc(u.flows.Left(), func(e wire.Socket) bool { return at.Has(&e) }) {
		return fmt.Errorf("%w: the predecessor has the flows of that address, see ListenFlows", err)
	}
	return err
}
