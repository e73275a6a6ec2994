package reuseport

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// yieldTime is how long other processes have to take the group lock between two
// turns of a move.
const yieldTime = 100 * time.Millisecond

func move(ctx context.Context, own []syscall.Conn, old []Leaving, turn time.Duration) (report Report, err error) {
	start := time.Now()
	defer func() { report.Duration = time.Since(start) }()
	if len(own) == 0 {
		return report, fmt.Errorf("move to no socket: %w", ErrNotMember)
	}
	proto := 0
	if err := control(own[0], func(fd int) (err error) {
		proto, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		return err
	}); err != nil {
		return report, err
	}
	c := newCrew(proto == unix.IPPROTO_UDP)
	defer func() {
		for _, s := range c.members() {
			c.drop(s)
		}
	}()
	add := func(conn syscall.Conn, shut func() error) (*socket, error) {
		s := &socket{conn: conn, shut: shut, count: new(atomic.Int64)}
		s.answering = func(bool) bool { return false }
		s.shared = func() bool { return false }
		if s.inode, err = inodeOfConn(conn); err != nil {
			return nil, err
		}
		return s, c.joined(s)
	}
	for _, conn := range own {
		if _, err := add(conn, func() error { return nil }); err != nil {
			return report, err
		}
	}
	var left []*socket
	for _, o := range old {
		s, err := add(o.Conn, o.Close)
		if err != nil {
			return report, err
		}
		left = append(left, s)
	}
	for len(left) > 0 {
		err := c.moveTurn(ctx, left, turn, &report)
		if err == nil {
			return report, nil
		}
		if ctx.Err() != nil {
			report.LossPossible = false
			return report, fmt.Errorf("%w: %w", ErrIncomplete, context.Cause(ctx))
		}
		if !errors.Is(err, ErrIncomplete) && !errors.Is(err, errChanged) {
			return report, err
		}
		pause := time.NewTimer(yieldTime)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return report, fmt.Errorf("%w: %w", ErrIncomplete, context.Cause(ctx))
		}
	}
	return report, nil
}

func (c *crew) moveTurn(ctx context.Context, left []*socket, turn time.Duration, report *Report) (err error) {
	own := c.members()[0]
	l := &leave{c: c, report: report, start: time.Now(), busy: time.Now(), counted: make(map[*socket]int64)}
	if err := l.open(own); err != nil {
		return err
	}
	defer l.close()
	queued := time.Now()
	c.lease, err = takeLease(ctx, l.site.leaseName())
	report.Queued += time.Since(queued)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, detach(own.conn))
		c.setCurrent(Hash())
		c.release()
	}()
	ctx, cancel := context.WithTimeout(ctx, turn)
	defer cancel()
	report.Left = 0
	if err := l.quiesce(ctx, left); err != nil {
		return err
	}
	report.Left = 0
	return l.all(context.WithoutCancel(ctx), left)
}
