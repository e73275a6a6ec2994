package reuseport

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// errChanged means that members of other processes came or went, so that the
// step has to be planned again.
var errChanged = errors.New("the group has changed")

// steered makes one step: some of left leave while a program turns the traffic
// away from all of them.
func (l *leave) steered(ctx context.Context, left []*socket, inodes []uint32, others int) error {
	order, err := l.order(ctx, inodes)
	if err != nil {
		return err
	}
	roles := make([]role, len(order))
	at := make(map[*socket]int, len(left))
	for _, s := range left {
		i := slices.Index(order, s.inode)
		if i < 0 {
			return fmt.Errorf("own member is not in the order: %w", ErrNotSteered)
		}
		roles[i], at[s] = leaves, i
	}
	// The last own member has nothing to take the program off with, once it
	// has left.
	alone := len(left) == 1 && len(l.c.members()) == 1 && others > 0 && !l.c.udp && l.probe != nil
	if alone {
		roles = append(roles, holds)
	}
	p := nextPlan(roles)
	if len(p.closes) == 0 {
		return fmt.Errorf("no plan for %d of %d members: %w", len(left), len(order), ErrNotSteered)
	}
	prog := program{targets: p.targets, sticky: l.c.udp}
	// One that leaves in a later step can be a target of this one.
	away := slices.DeleteFunc(slices.Clone(left), func(s *socket) bool { return slices.Contains(p.targets, at[s]) })
	if err := l.turn(ctx, prog, away); err != nil {
		return err
	}
	var stop *doorstop
	if alone {
		if stop, err = l.placeDoorstop(ctx, prog, inodes); err != nil {
			if errors.Is(err, errChanged) {
				return err
			}
			l.report.note("the program stays on the group: " + err.Error())
		}
		defer stop.remove(l)
	}
	victims := make([]*socket, len(p.closes))
	for s, i := range at {
		if k := slices.Index(p.closes, i); k >= 0 {
			victims[k] = s
		}
	}
	if err := awaitGrace(ctx); err != nil {
		return l.abandon(victims, err)
	}
	l.note(StrategySteer)
	if l.migrate && !l.c.udp {
		l.note(StrategySteerMigrate)
	}
	want := inodes
	if stop != nil {
		want = slices.Sorted(slices.Values(append(slices.Clone(inodes), stop.inode)))
	}
	if err := l.wait(ctx, victims, l.migrate, want); err != nil {
		if err == errChanged {
			return err
		}
		return l.abandon(victims, err)
	}
	if now, _, err := l.group(); err != nil || !slices.Equal(now, want) {
		return errors.Join(errChanged, err)
	}
	exposed, err := l.closeAll(ctx, victims)
	if err != nil {
		return l.abandon(victims, err)
	}
	want = slices.DeleteFunc(slices.Clone(want), func(inode uint32) bool {
		return slices.ContainsFunc(victims, func(s *socket) bool { return s.inode == inode })
	})
	now, _, err := l.group()
	l.noteExposed(exposed, now)
	if err != nil {
		l.lossy("the group after the close is not known: " + err.Error())
	} else if !slices.Equal(now, want) {
		l.afterwards(now, want, victims)
	}
	return nil
}
