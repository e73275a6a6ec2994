package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// Mode Drain in a few words. Both processes are members of the same groups. The
// predecessor lends the successor duplicates of its members with the manifest,
// the successor lends it duplicates of its own before the kernel can give them
// anything. At ready the predecessor turns new traffic away from its members and
// goes on serving what they hold. Whoever is left in the end, by commit, by
// rollback or by the other's death, takes the other's members in: it serves what
// they hold, beside its own, and drains them when the other has closed them. The
// other just closes.

// A drain is the predecessor's side of an upgrade in mode Drain.
type drain struct {
	u      *Upgrader
	ctx    context.Context // of quiesce
	cancel context.CancelFunc
	wg     sync.WaitGroup  // quiesce, one for each crowd
	guests context.Context // of taking in the successor's members
	stop   context.CancelFunc

	mu      sync.Mutex
	begun   bool
	over    bool
	crowds  []*crowd
	loans   []session.Item // the successor's members
	reports []GroupReport

	gone   chan struct{} // closed when the upgrade is over
	parted bool          // the successor has closed its members by then; valid once gone is closed
	peer   int           // the successor's process ID, 0 if it isn't known
}

// A departure yields when another process has closed its members of a kind,
// which have these inodes. The channel is closed when ctx ends as well.
type departure func(ctx context.Context, kind wire.SocketKind, inodes []uint64) <-chan struct{}

// serves reports whether e goes on serving in probation: the successor has a
// member of its own.
func (up *upgrade) serves(e *wire.Socket) bool { return up.drain != nil && inet(e) }

func newDrain(u *Upgrader) *drain {
	d := &drain{u: u, gone: make(chan struct{})}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.guests, d.stop = context.WithCancel(context.Background())
	return d
}

// maxLoans bounds what a successor can make us keep open, for each socket of ours.
const maxLoans = 4096

// lent keeps what the successor lends. It owns fds.
func (d *drain) lent(entries []wire.Socket, fds []int) error {
	d.mu.Lock()
	n := len(d.loans)
	d.mu.Unlock()
	if limit := maxLoans * len(d.u.table.snapshot()); n+len(fds) > limit {
		_ = fdx.Close(fds...) // of no use
		return fmt.Errorf("%d sockets lent, %d are allowed", n+len(fds), limit)
	}
	for i := range fds {
		if err := checkMember(fds[i]); err != nil {
			_ = fdx.Close(fds[i:]...) // of no use
			return fmt.Errorf("%s: %w", entries[i].Bound, err)
		}
		if !inet(&entries[i]) || len(d.u.table.bound(&entries[i])) == 0 {
			// An address of its own: if it dies, nobody serves there.
			_ = fdx.Close(fds[i])
			continue
		}
		d.mu.Lock()
		d.loans = append(d.loans, session.Item{Socket: entries[i], FD: fds[i]})
		d.mu.Unlock()
	}
	return nil
}

// begin turns the traffic away from our members, and goes on in the background.
func (d *drain) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun || d.over {
		return
	}
	d.begun = true
	var ours []*socket
	for _, s := range d.u.table.snapshot() {
		if inet(&s.entry) && !s.joins() {
			ours = append(ours, s)
		}
	}
	for _, sockets := range crowds(ours) {
		d.wg.Go(func() { d.quiesce(sockets) }) // ends with its work or with cancel
	}
}

func (d *drain) quiesce(sockets []*socket) {
	report := GroupReport{Network: sockets[0].entry.Network, Address: sockets[0].entry.Bound}
	c, err := newCrowd(d.ctx, sockets)
	if err == nil {
		d.mu.Lock()
		d.crowds = append(d.crowds, c)
		d.mu.Unlock()
		report.Report, err = c.quiesce(d.ctx)
	}
	if err != nil {
		// Nothing is lost by it: the successor serves what is left.
		report.Error = err.Error()
		if d.ctx.Err() == nil {
			d.u.log.Warn("turn traffic away", "address", report.Address, "error", err)
		}
	}
	d.mu.Lock()
	d.reports = append(d.reports, report)
	d.mu.Unlock()
}

// end stops what begin began and returns what came of it.
func (d *drain) end() []GroupReport {
	d.mu.Lock()
	d.over = true
	d.mu.Unlock()
	d.cancel()
	d.wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reports
}

// take ends what begin began and returns what is there, once.
func (d *drain) take() ([]*crowd, []session.Item) {
	d.end()
	d.mu.Lock()
	defer d.mu.Unlock()
	crowds, loans := d.crowds, d.loans
	d.crowds, d.loans = nil, nil
	return crowds, loans
}

// leave lets go of everything: the successor has duplicates of our members. It
// may come after back, where a successor that was silent turns out to be well.
func (d *drain) leave() {
	crowds, loans := d.take()
	d.stop()
	for _, c := range crowds {
		_ = c.close() // duplicates
	}
	for _, it := range loans {
		_ = fdx.Close(it.FD) // likewise
	}
}

// back takes the traffic back, and takes in what the successor's members hold.
// They are drained when gone is closed.
func (d *drain) back() {
	crowds, loans := d.take()
	d.u.takeIn(d.guests, loans, crowds, func(ctx context.Context, _ wire.SocketKind, inodes []uint64) <-chan struct{} {
		return async(func() {
			select {
			case <-d.gone:
				if !d.parted {
					released(ctx, d.peer, inodes)
				}
			case <-ctx.Done():
			}
		})
	})
}

// failed ends the upgrade, which was not committed. parted says that the
// successor has closed its members.
func (d *drain) failed(parted bool) {
	d.back()
	d.parted = parted // before the close: see there
	close(d.gone)
}

// async returns a channel that is closed when f has returned. f must end by
// itself.
func async(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

// lending is the successor's side: what it knows of a predecessor in mode Drain.
type lending struct {
	predecessor int                               // its process ID, 0 if it isn't known
	told        map[wire.SocketKind]chan struct{} // closed when it says that it has closed its members
	over        chan struct{}                     // closed when the conversation is
	mu          sync.Mutex
}

func newLending(pid int) *lending {
	return &lending{
		predecessor: pid,
		told:        map[wire.SocketKind]chan struct{}{wire.KindListener: make(chan struct{}), wire.KindPacket: make(chan struct{})},
		over:        make(chan struct{}),
	}
}

func (l *lending) note(c chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-c:
	default:
		close(c)
	}
}

// linger notes what a lingering predecessor says.
func (l *lending) linger(m wire.Linger) {
	if l == nil {
		return
	}
	l.note(l.told[wire.KindListener])
	if !m.Holds {
		l.note(l.told[wire.KindPacket])
	}
}

// ended notes that the predecessor says nothing more.
func (l *lending) ended() {
	if l != nil {
		l.note(l.over)
	}
}

// lend borrows the members that the predecessor has to have before they join.
func (u *Upgrader) lend() ([]session.Item, func()) {
	var items []session.Item
	var held []*socket
	for _, s := range u.table.snapshot() {
		if s.joins() && s.hold() {
			held = append(held, s)
			items = append(items, session.Item{Socket: s.entry, FD: s.fd})
		}
	}
	return items, func() {
		for _, s := range held {
			_ = s.release() // an error belongs to whoever closed it
		}
	}
}

// joinGroups has the kernel give our members their share.
func (u *Upgrader) joinGroups() error {
	for _, s := range u.table.snapshot() {
		if err := s.join(); err != nil {
			return fmt.Errorf("handoff: join %s %s: %w", s.entry.Network, s.entry.Bound, explainForeign(err))
		}
	}
	return nil
}

// takeInLoans takes in the predecessor's members.
func (u *Upgrader) takeInLoans() {
	l := u.lending
	u.takeIn(context.Background(), u.table.takeLoans(), nil, func(ctx context.Context, kind wire.SocketKind, inodes []uint64) <-chan struct{} {
		return async(func() {
			select {
			case <-l.told[kind]:
			case <-l.over:
				released(ctx, l.predecessor, inodes)
			case <-ctx.Done():
			}
		})
	})
}

// takeIn serves what loans hold, beside our own sockets on their addresses, and
// drains each when who lent it has closed it. It takes the loans and the crowds,
// which may be some of those that it needs, and returns at once. It stops, and
// closes what is left, when parent ends, or at Shutdown.
func (u *Upgrader) takeIn(parent context.Context, loans []session.Item, have []*crowd, gone departure) {
	groups := make(map[string][]session.Item)
	for _, it := range loans {
		k := fmt.Sprint(it.Socket.Kind, it.Socket.Domain, it.Socket.Bound)
		groups[k] = append(groups[k], it)
	}
	for _, group := range groups {
		e := &group[0].Socket
		own := u.table.bound(e)
		if len(own) == 0 {
			for _, it := range group {
				_ = fdx.Close(it.FD) // nobody serves there any more
			}
			continue
		}
		var c *crowd
		for i, h := range have {
			if h.address == e.Bound && (h.udp != nil) == (e.Kind == wire.KindPacket) {
				c = h
				have = append(have[:i:i], have[i+1:]...)
				break
			}
		}
		u.visits.begin()
		u.wg.Go(func() { // ends with its work, or with closing
			defer u.visits.end()
			u.host(parent, c, own, group, gone)
		})
	}
	for _, c := range have {
		u.visits.begin()
		u.wg.Go(func() {
			defer u.visits.end()
			ctx, cancel := u.untilClosing(parent)
			defer cancel()
			err := c.shun(ctx) // nobody
			if err = errors.Join(err, c.close()); err != nil {
				u.log.Warn("take traffic back", "address", c.address, "error", err)
			}
		})
	}
}

// untilClosing returns a context that ends when Shutdown lets go of everything.
func (u *Upgrader) untilClosing(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	u.wg.Go(func() { // ends with closing, or with the context
		select {
		case <-u.closing:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, cancel
}

// host is takeIn for one address.
func (u *Upgrader) host(parent context.Context, c *crowd, own []*socket, loans []session.Item, gone departure) {
	ctx, cancel := u.untilClosing(parent)
	defer cancel()
	address, kind := loans[0].Socket.Bound, loans[0].Socket.Kind
	var pumps sync.WaitGroup
	var err error
	inodes := make([]uint64, len(loans))
	for i, it := range loans {
		inodes[i] = inodeOf(it.FD)
	}
	if c == nil {
		c, err = newCrowd(ctx, own)
	}
	for i, it := range loans {
		if perr := u.serveGuest(ctx, &pumps, c, own[i%len(own)], it); perr != nil {
			err = errors.Join(err, perr)
		}
	}
	defer pumps.Wait()
	if c == nil || err != nil {
		u.log.Error("the other process's sockets are served and can't be drained", "address", address, "error", err)
		if c != nil {
			defer c.close()
		}
		<-ctx.Done()
		return
	}
	defer func() { _ = c.close() }() // duplicates
	// At once, so that ours get everything new. It fails while the other process
	// has its turn.
	steer, stop := context.WithTimeout(ctx, steerTimeout)
	if err := c.shun(steer); err != nil {
		u.log.Debug("turn traffic away", "address", address, "error", err)
	}
	stop()
	select {
	case <-gone(ctx, kind, inodes):
	case <-ctx.Done():
	}
	report, err := c.remove(ctx)
	if err != nil {
		u.log.Warn("drain", "address", address, "error", err)
		return
	}
	log := u.log.Info
	if report.LossPossible {
		log = u.log.Warn
	}
	log("drained", "address", address, "strategy", report.Strategy, "members", report.Members,
		"accepted", report.Accepted, "took", report.Duration, "reason", report.Reason)
}

// steerTimeout bounds the first attempt to turn traffic away from another
// process's members; it is nothing that serving depends on.
const steerTimeout = 500 * time.Millisecond

// released waits until the process has none of the sockets open any more, as
// far as that can be seen from here: it was killed, or is stopped and will close
// them when it wakes up.
func released(ctx context.Context, pid int, inodes []uint64) {
	for pause := time.Millisecond; holds(pid, inodes); pause = min(2*pause, time.Second) {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// serveGuest serves one loan, which it takes, through s.
func (u *Upgrader) serveGuest(ctx context.Context, pumps *sync.WaitGroup, c *crowd, s *socket, it session.Item) error {
	var m any
	var err error
	if it.Socket.Kind == wire.KindPacket {
		var pc net.PacketConn
		if pc, err = fdx.PacketConn(it.FD, it.Socket.Bound); err != nil {
			return err
		}
		m = pc
	} else {
		var ln net.Listener
		if ln, err = fdx.Listener(it.FD, it.Socket.Bound); err != nil {
			return err
		}
		m = ln
	}
	if c != nil {
		var guest reuseport.Member
		conn := m.(interface { // net's sockets are both
			syscall.Conn
			io.Closer
		})
		if guest, err = c.adopt(conn); err == nil {
			_ = conn.Close() // the member has its own
			m = guest
		}
	}
	pumps.Go(func() { // ends with the member, or with ctx
		switch m := m.(type) {
		case interface{ Accept() (net.Conn, error) }:
			u.pumpConns(ctx, m, &s.ln.guests)
		case packetReader:
			u.pumpPackets(m, &s.pc.guests)
		}
	})
	if closer, ok := m.(io.Closer); ok {
		context.AfterFunc(ctx, func() { _ = closer.Close() }) // ends the pump
	}
	return err
}

func (u *Upgrader) pumpConns(ctx context.Context, ln interface{ Accept() (net.Conn, error) }, to *inflow[net.Conn]) {
	for {
		c, err := ln.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // short of descriptors, most likely
			t := time.NewTimer(5 * time.Millisecond)
			select {
			case <-t.C:
			case <-ctx.Done():
			}
			t.Stop()
			continue
		}
		if !to.push(c, u.closing) {
			_ = c.Close() // the process ends
		}
	}
}

type packetReader interface {
	ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
}

func (u *Upgrader) pumpPackets(pc packetReader, to *inflow[datagram]) {
	buf, oob := make([]byte, 1<<16), make([]byte, 1<<10)
	for {
		n, oobn, flags, from, err := pc.ReadMsgUDPAddrPort(buf, oob)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // an ICMP error, which is reported once
			continue
		}
		d := datagram{data: append([]byte(nil), buf[:n]...), oob: append([]byte(nil), oob[:oobn]...), flags: flags, from: from}
		to.push(d, u.closing)
	}
}

// visits counts the addresses at which another process's members are served.
type visits struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed while there is none
}

func newVisits() *visits {
	v := &visits{none: make(chan struct{})}
	close(v.none)
	return v
}

func (v *visits) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.n++; v.n == 1 {
		v.none = make(chan struct{})
	}
}

func (v *visits) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.n--; v.n == 0 {
		close(v.none)
	}
}

// settled waits until there is none, for a moment.
func (v *visits) settled(patience time.Duration) error {
	v.mu.Lock()
	none := v.none
	v.mu.Unlock()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-none:
		return nil
	case <-t.C:
		return fmt.Errorf("%w: the sockets of the process before are not drained yet", ErrInProgress)
	}
}
