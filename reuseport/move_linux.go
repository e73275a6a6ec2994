package reuseport

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// yieldTime is how long other processes have to take the group lock between two
// turns of a move, and failTime how long a move waits after a turn that has failed.
const (
	yieldTime = 100 * time.Millisecond
	failTime  = time.Second
)

func move(ctx context.Context, own []syscall.Conn, old []Leaving, limit time.Duration) (report Report, err error) {
	start := time.Now()
	defer func() { report.Duration = time.Since(start) }()
	g, left, err := movingGroup(own, old)
	if err != nil || len(own) == 0 {
		return report, errors.Join(err, g.giveUp(ctx, left, &report))
	}
	for failed := 0; len(left) > 0; {
		wait := yieldTime
		err := g.moveTurn(ctx, left, limit, &report)
		left = g.present(left)
		switch {
		case len(left) == 0:
			return report, err
		case err == nil:
			failed = 0 // only the turn was over
		case ctx.Err() == nil:
			wait = failTime
			if failed++; errors.Is(err, errors.ErrUnsupported) || failed == maxTries {
				return report, err
			}
		}
		if sleep(ctx, wait) != nil {
			return report, fmt.Errorf("%w: %w", ErrIncomplete, context.Cause(ctx))
		}
	}
	return report, nil
}

// movingGroup returns the sockets as members, which close nothing but what is old.
func movingGroup(own []syscall.Conn, old []Leaving) (g *localGroup, left []*socket, err error) {
	g = emptyGroup(false)
	var key groupKey
	switch {
	case len(own) > 0:
		key, err = groupKeyOf(own[0])
	case len(old) > 0:
		key, err = groupKeyOf(old[0].Conn)
	}
	if err != nil {
		return g, nil, err
	}
	g.udp = key.query.Protocol == unix.IPPROTO_UDP
	for _, conn := range own {
		g.socks = append(g.socks, &socket{group: g, conn: conn})
	}
	for _, o := range old {
		s := &socket{group: g, conn: o.Conn, close: o.Close}
		if p, ok := o.Conn.(*PacketConn); ok {
			s.reads = &p.reads
		}
		g.socks, left = append(g.socks, s), append(left, s)
	}
	for _, s := range g.socks {
		if s.inode, err = inodeOf(s.conn); err != nil {
			return g, nil, err
		}
		if k, err := groupKeyOf(s.conn); err != nil || k != key {
			return g, nil, errors.Join(ErrForeign, err)
		}
	}
	return g, left, nil
}

// moveTurn closes those of left that get quiet in one turn. It returns nil if the
// time of the turn is over.
func (g *localGroup) moveTurn(ctx context.Context, left []*socket, limit time.Duration, report *Report) (err error) {
	own := g.sockets()[0]
	t, err := g.begin(ctx, own, report)
	defer t.end()
	if err == nil {
		err = t.blind
	}
	if err != nil {
		return err
	}
	defer func() {
		report.Left = t.heldBy(left)
		if derr := t.detach(own); derr != nil {
			t.lossy("the program stays on the group: " + derr.Error())
		}
		err = errors.Join(append(t.errs, err)...)
	}()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		switch err := t.steered(ctx, left); {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, errChanged):
			return err
		}
		left = g.present(left)
	}
}
