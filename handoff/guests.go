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
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// takeInLoans takes in the predecessor's members.
func (u *Upgrader) takeInLoans() {
	l := u.lending
	u.takeIn(context.Background(), l.takeLoans(), nil, func(ctx context.Context, kind wire.SocketKind, inodes []uint64) <-chan struct{} {
		return async(func() {
			select {
			case <-l.told[kind]:
			case <-l.over:
				if !l.says(kind) {
					released(ctx, l.predecessor, inodes)
				}
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
		own := u.table.Bound(e)
		if len(own) == 0 {
			for _, it := range group {
				_ = fdx.Close(it.FD) // nobody serves there any more
			}
			continue
		}
		group, waiting := joined(group)
		if len(waiting) > 0 {
			u.visit(func() { u.hostLater(parent, own, waiting, gone) }) // ends as host
		}
		if len(group) == 0 {
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
		u.visit(func() { u.host(parent, c, own, group, gone) }) // ends with its work, or with closing
	}
	for _, c := range have {
		u.visit(func() {
			ctx, cancel := u.untilClosing(parent)
			defer cancel()
			err := c.shun(ctx) // nobody
			if err = errors.Join(err, c.close()); err != nil {
				u.log.Warn("take traffic back", "address", c.address, "error", err)
			}
		})
	}
}

// visit runs f, which ends before the next upgrade begins.
func (u *Upgrader) visit(f func()) {
	u.visits.begin()
	u.wg.Go(func() {
		defer u.visits.end()
		f()
	})
}

// joined divides loans into those that the kernel can give something, and those
// that it can't: their process has lent them and died, or failed, before it had
// them join their groups. It may still do that if it lives.
func joined(loans []session.Item) (in, waiting []session.Item) {
	for _, it := range loans {
		if hasJoined(it.Socket.Kind, it.FD) {
			in = append(in, it)
		} else {
			waiting = append(waiting, it)
		}
	}
	return in, waiting
}

// hostLater is host for loans that have not joined their groups when it is called.
// They are kept until their process has closed them, for what comes to them if it
// has them join, and is killed.
func (u *Upgrader) hostLater(parent context.Context, own []*sockets.Socket, loans []session.Item, gone departure) {
	ctx, cancel := u.untilClosing(parent)
	defer cancel()
	select {
	case <-gone(ctx, loans[0].Socket.Kind, inodesOf(loans)):
	case <-ctx.Done():
	}
	in, never := joined(loans)
	for _, it := range never {
		_ = fdx.Close(it.FD) // it has nothing
	}
	if len(in) > 0 {
		u.host(parent, nil, own, in, gone)
	}
}

func inodesOf(loans []session.Item) []uint64 {
	inodes := make([]uint64, len(loans))
	for i, it := range loans {
		inodes[i] = inodeOf(it.FD)
	}
	return inodes
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
func (u *Upgrader) host(parent context.Context, c *crowd, own []*sockets.Socket, loans []session.Item, gone departure) {
	ctx, cancel := u.untilClosing(parent)
	defer cancel()
	address, kind := loans[0].Socket.Bound, loans[0].Socket.Kind
	var pumps sync.WaitGroup
	var err error
	inodes := inodesOf(loans)
	if c == nil {
		c, err = newCrowd(ctx, own, u.cfg)
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
	if ctx.Err() == nil {
		c.exclusive() // ours are the last duplicates
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
func (u *Upgrader) serveGuest(ctx context.Context, pumps *sync.WaitGroup, c *crowd, s *sockets.Socket, it session.Item) error {
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
			u.pumpConns(ctx, m, s.Listener)
		case packetReader:
			u.pumpPackets(m, s.PacketConn)
		}
	})
	if closer, ok := m.(io.Closer); ok {
		context.AfterFunc(ctx, func() { _ = closer.Close() }) // ends the pump
	}
	return err
}

func (u *Upgrader) pumpConns(ctx context.Context, ln interface{ Accept() (net.Conn, error) }, to *sockets.Listener) {
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
		if !to.Offer(c, u.closing) {
			_ = c.Close() // the process ends
		}
	}
}

type packetReader interface {
	ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
}

func (u *Upgrader) pumpPackets(pc packetReader, to *sockets.PacketConn) {
	buf, oob := make([]byte, 1<<16), make([]byte, 1<<10)
	for {
		n, oobn, flags, from, err := pc.ReadMsgUDPAddrPort(buf, oob)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // an ICMP error, which is reported once
			continue
		}
		d := sockets.Datagram{Data: append([]byte(nil), buf[:n]...), OOB: append([]byte(nil), oob[:oobn]...), Flags: flags, From: from}
		to.Offer(d, u.closing)
	}
}
