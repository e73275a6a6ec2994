package handoff

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/seed-11c92bf9/baton/handoff/internal/rebind"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A successor may have other addresses than its predecessor. The predecessor serves
// those that the successor has not asked for until the commit, and then leaves them.

// leaveOut finds out, before Ready, which sockets of the predecessor the program has not
// asked for. It returns why the upgrade must not be.
func (u *Upgrader) leaveOut() error {
	left, all := u.table.LeaveOut()
	names, lanes := u.flowsLeft()
	gone := make([]string, 0, len(names)+len(left))
	for _, name := range names {
		gone = append(gone, name+" are given up: the predecessor serves them until it ends")
	}
	all += lanes
	others := len(names) // that have none of this process's beside them
	for _, l := range left {
		name := strings.TrimSpace(fmt.Sprint(l.Entry.Name, " ", l.Entry.Network, " ", l.Entry.Bound))
		names = append(names, name)
		if l.By == "" {
			others++
		}
		switch {
		case l.Covered:
			continue
		case l.Entry.Keeper == wire.KeeperUnit:
			name += " is not served any more: connections will wait in it, because its socket unit has it"
		case l.By != "":
			name += " is given up, but for what " + l.By + " gets"
		default:
			name += " is given up"
		}
		gone = append(gone, name)
	}
	switch {
	case all > 0 && others == all:
		return fmt.Errorf("%w: the program has opened none of the sockets of its predecessor, pid %d (Name %q, version %q): %s: have the program open one of them, or run it as another service, with another Name", ErrMismatch, u.welcome.PID, u.welcome.Name, u.welcome.Build, strings.Join(names, ", "))
	case u.cfg.RequireAll && len(gone) > 0:
		return fmt.Errorf("%w: RequireAll is set, and the program has not opened all sockets of its predecessor: %s", ErrMismatch, strings.Join(gone, ", "))
	}
	if most := wire.MaxEntries - 1; len(left) > most { // with another warning
		return fmt.Errorf("%w: the program has not opened %d sockets of its predecessor, and an upgrade can leave out %d at most: have it open more of them, and leave out the others with the next upgrade", ErrUnsupported, len(left), most)
	}
	for _, text := range gone {
		u.log.Warn("left out: " + text)
	}
	elsewhere := u.elsewhere()
	if elsewhere != "" {
		u.log.Warn(elsewhere)
		gone = append(gone, elsewhere)
	}
	u.owner.ask(func(s *state) { s.left, s.warnings, s.elsewhere = left, append(gone, s.astray...), elsewhere }) // of each call of Ready the same
	return nil
}

// elsewhere says which sockets were made in another network namespace than this
// process's, or "". One whose line began in this one is there on purpose: systemd gives
// a service with PrivateNetwork sockets of the machine.
func (u *Upgrader) elsewhere() string {
	if u.control == nil || !rebind.Foreign(u.control.Handle()) {
		return ""
	}
	var names []string
	for _, s := range u.table.All() {
		if sockets.Inet(&s.Entry) && rebind.Foreign(s.Handle()) {
			names = append(names, s.Entry.Network+" "+s.Entry.Bound)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "this process serves sockets of another network namespace than its own, which the kernel removes with its last process: " + strings.Join(names, ", ") + ": start each version in one network namespace, as with --network=host"
}

// announce completes Ready.
func (u *Upgrader) announce(m *wire.Ready) {
	var left []sockets.LeftOut
	u.owner.ask(func(s *state) { left, m.Warnings = s.left, s.warnings })
	for _, l := range left {
		if l.Entry.Keeper != wire.KeeperUnit {
			e := &l.Entry
			m.Left = append(m.Left, wire.Socket{Kind: e.Kind, Name: e.Name, Network: e.Network, Address: e.Address, Shard: e.Shard})
		}
	}
}

// beside makes a socket for k whose address overlaps that of sockets of the predecessor,
// as of "127.0.0.1:80" and ":80". It listens from the commit on, before the predecessor
// leaves those: until then they get what comes to their address.
func (u *Upgrader) beside(ctx context.Context, k sockets.Key, over []sockets.Arrived) (*sockets.Socket, error) {
	var fds []int
	for _, a := range over {
		fd, err := a.Source.Borrow(&a.Entry)
		if err == nil {
			fd, err = fdx.DupFD(fd) // a Listen may take the other one before the commit
		}
		if err != nil {
			return nil, errors.Join(err, fdx.Close(fds...))
		}
		fds = append(fds, fd)
	}
	o, err := rebind.ReserveBeside(ctx, k, &u.cfg.listenConfig, fds, u.cfg.Mode == Drain)
	if err != nil {
		return nil, fmt.Errorf("the predecessor has %s %s, which overlaps: %w", over[0].Entry.Network, over[0].Entry.Bound, err)
	}
	s, err := sockets.New(k, o.Handle, &u.cfg.listenConfig, &sockets.Origin{}) // net has forgotten the keep-alive
	if err != nil {
		return nil, errors.Join(err, o.Release())
	}
	s.Defer()
	u.mover.AddLate(s, o)
	return s, nil
}

// leaveKept leaves the sockets that the successor does not serve, after the commit. The
// program accepts meanwhile: Done is open. A client that does not end its handshake within
// the hang timeout is not waited for, nor any after a stop, which has shut the gates.
func (u *Upgrader) leaveKept(up *upgrade) {
	kept := u.table.Kept()
	if len(kept) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), u.cfg.hang)
	defer cancel()
	u.wg.Go(func() { // ends with ctx
		select {
		case <-u.done:
			cancel()
		case <-ctx.Done():
		}
	})
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, s := range kept {
		wg.Go(func() { // ends with ctx
			r, err := rebind.GiveUp(ctx, s)
			mu.Lock()
			defer mu.Unlock()
			name := s.Entry.Network + " " + s.Entry.Bound
			u.log.Info("left", "address", name, "strategy", r.Strategy, "half_open", r.HalfOpen, "took", r.Duration)
			switch {
			case r.Left > 0:
				up.account.warn(fmt.Sprintf("%s is closed with %d connections in its queue, or in a handshake", name, r.Left))
			case err != nil:
				up.account.warn(fmt.Sprintf("%s is left: %v", name, err))
			case r.LossPossible:
				up.account.warn(fmt.Sprintf("%s is closed, and a connection may be lost: %s", name, r.Reason))
			}
		})
	}
	wg.Wait()
}
