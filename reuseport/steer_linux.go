package reuseport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// steer changes the steering of the group.
func (c *crew) steer(ctx context.Context, s Steering) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	own := c.members()
	if len(own) == 0 {
		return ErrClosed
	}
	if c.steeredBy() != nil {
		return fmt.Errorf("steer by %v: the group has a Steerer: %w", s, errors.ErrUnsupported)
	}
	l := &leave{c: c, report: new(Report), start: time.Now()}
	if err := l.open(own[0]); err != nil {
		return err
	}
	defer l.close()
	if c.lease == nil {
		var err error
		if c.lease, err = takeLease(ctx, l.site.leaseName()); err != nil {
			return err
		}
	}
	defer c.release()
	if err := l.apply(ctx, s); err != nil {
		return fmt.Errorf("steer by %v: %w", s, err)
	}
	c.setCurrent(s)
	return nil
}

// errNobody says that all members are to be kept from the traffic.
var errNobody = fmt.Errorf("no member is left to get the traffic: %w", ErrNotSteered)

// apply puts the program for s on the group.
func (l *leave) apply(ctx context.Context, s Steering) error {
	own := l.c.members()
	if s.kind == steerHash {
		l.c.prog = program{}
		return detach(own[0].conn)
	}
	var weights []int
	if s.kind == steerWeights {
		var err error
		if weights, err = s.shares(len(own)); err != nil {
			return err
		}
	}
	var away []*socket
	for _, m := range s.away {
		if !slices.Contains(own, m.member()) {
			return ErrNotMember
		}
		away = append(away, m.member())
	}
	for try := 0; ; try++ {
		if err := restless(ctx, try); err != nil {
			// Indexes of whom, it is not known.
			l.c.prog = program{}
			l.c.setCurrent(Hash())
			return errors.Join(err, detach(own[0].conn))
		}
		inodes, _, err := l.group()
		if err != nil {
			return err
		}
		order, err := l.order(ctx, inodes)
		if err == errChanged {
			continue
		}
		if err != nil {
			return err
		}
		prog := program{sticky: l.c.udp}
		if s.kind == steerAway {
			for i, inode := range order {
				if !slices.ContainsFunc(away, func(s *socket) bool { return s.inode == inode }) {
					prog.targets = append(prog.targets, i)
				}
			}
			if len(prog.targets) == 0 {
				return errNobody
			}
			err = l.turn(ctx, prog, away)
		} else {
			for _, s := range own {
				prog.targets = append(prog.targets, slices.Index(order, s.inode))
			}
			prog.weights, prog.byCPU = weights, s.kind == steerCPU
			err = l.turn(ctx, prog, nil)
		}
		now, _, gerr := l.group()
		if gerr == nil && !slices.Equal(now, inodes) {
			continue // whatever the probes have said
		}
		if err := errors.Join(err, gerr); err != nil {
			return err
		}
		return nil
	}
}

// restless returns an error when ctx has ended and the group has changed under
// several tries.
func restless(ctx context.Context, try int) error {
	if try < maxTries || ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("members come and go all the time, under %d tries: %w", try, context.Cause(ctx))
}
