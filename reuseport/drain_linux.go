package reuseport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// remove lets socks leave the group, and closes them.
func (g *localGroup) remove(ctx context.Context, socks []*socket) (report Report, err error) {
	counted := make([]int64, len(socks))
	for i, s := range socks {
		counted[i] = s.count.Load()
	}
	t, err := g.begin(ctx, socks[0], &report)
	defer func() {
		for i, s := range socks {
			report.Accepted += s.count.Load() - counted[i]
		}
		report.Duration = time.Since(t.start)
	}()
	defer t.end() // after the steering was restored
	if errors.Is(err, errSquatted) {
		t.lossy(err.Error())
		err = nil
	}
	if err != nil {
		return report, t.closeNow(ctx, socks, err)
	}
	// Those that have left by themselves are no reason to keep the others.
	if len(g.present(socks)) == 0 {
		return report, ErrClosed
	}
	g.leaving.Add(1)
	defer g.leaving.Add(-1)
	err = t.drain(ctx, socks)
	if t.blind != nil {
		g.setCurrent(Hash()) // what is named by its place can't be found again
	}
	if rerr := t.restore(ctx); rerr != nil {
		err = errors.Join(err, fmt.Errorf("restore the steering: %w", rerr))
	}
	return report, errors.Join(append(t.errs, err)...)
}

// drain lets socks leave, in as many steps as it takes.
func (t *turn) drain(ctx context.Context, socks []*socket) error {
	for failed := 0; ; {
		left := t.g.present(socks)
		if len(left) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return t.closeNow(ctx, left, fmt.Errorf("wait until nothing is left: %w", context.Cause(ctx)))
		}
		err := t.step(ctx, left)
		if err == nil || ctx.Err() != nil || errors.Is(err, errChanged) {
			continue
		}
		if failed++; failed < maxTries && !errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err := t.unsteered(ctx, left, err); err != nil && ctx.Err() == nil {
			return t.closeNow(ctx, left, err)
		}
	}
}

// step lets left leave, or all of them but one if there are no other members.
func (t *turn) step(ctx context.Context, left []*socket) error {
	if t.blind != nil {
		return t.unsteered(ctx, left, t.blind)
	}
	_, others, err := t.group()
	if err != nil {
		return t.bestEffort(ctx, left, err)
	}
	if n := len(left); others == 0 && n == len(t.g.sockets()) {
		if n == 1 || t.canStop(left[0]) {
			t.report.Last = true
			return t.unsteered(ctx, left, nil)
		}
		left = left[:n-1] // the last one gets the traffic while the others go
	}
	return t.steered(ctx, left)
}

// steered lets left leave while a program turns the traffic away from them. It closes
// no member that holds something.
func (t *turn) steered(ctx context.Context, left []*socket) error {
	inodes, _, err := t.group()
	if err != nil {
		return err
	}
	order, err := t.locate(ctx, inodes)
	if err != nil {
		return err
	}
	if err := t.steerAway(order, left); err != nil {
		return err
	}
	for first := true; ; first = false {
		if err := awaitGrace(ctx); err != nil {
			return err
		}
		if t.migrate {
			t.strategy(StrategySteerMigrate)
		} else {
			t.strategy(StrategySteer)
		}
		if n := t.snapshot(left); first {
			t.report.HalfOpen += n
		}
		quiet, err := t.awaitQuiet(ctx, left, inodes)
		if err != nil {
			return err
		}
		if !t.is(inodes) {
			return errChanged
		}
		var out []*socket
		if order, out, err = t.takeOut(ctx, order, quiet, left); err != nil {
			return err
		}
		left = remaining(left, out)
		if inodes, err = t.groupAfter(inodes, out); err != nil && len(left) > 0 {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if err := t.steerAway(order, left); err != nil {
			return err
		}
	}
}

// groupAfter returns the inodes of the group after out have left. It gives an error
// if the group is another one.
func (t *turn) groupAfter(inodes []uint32, out []*socket) ([]uint32, error) {
	now, _, err := t.group()
	if err != nil {
		t.lossy("the group after the close is not known: " + err.Error())
		return nil, err
	}
	want := slices.DeleteFunc(inodes, func(inode uint32) bool { return hasInode(out, inode) })
	if slices.Equal(now, want) {
		return want, nil
	}
	if slices.ContainsFunc(want, func(inode uint32) bool { return !slices.Contains(now, inode) }) {
		t.lossy("another member left the group in the same moment without taking turns")
	}
	return nil, errChanged
}

// steerAway gives the traffic to all members of order but left.
func (t *turn) steerAway(order []uint32, left []*socket) error {
	return t.attach(program{targets: places(order, left), sticky: t.g.udp}, t.g.sockets()[0])
}

// unsteered lets sockets leave without a program. why says what is wrong with one;
// nil means that no other member would get the traffic.
func (t *turn) unsteered(ctx context.Context, left []*socket, why error) error {
	if why != nil {
		t.report.note("not steered: " + why.Error())
		if t.migrate {
			t.strategy(StrategyMigrate)
			t.lossy("a SYN can meet the close")
			t.shut(left...)
			return nil
		}
	}
	if t.g.udp {
		return t.bestEffort(ctx, left, errNoOther)
	}
	for i, s := range left {
		err := stopQueueing(s.conn)
		if err == nil {
			continue
		}
		for _, s := range left[:i] {
			_ = resumeQueueing(s.conn) // the filter was put on a moment ago
		}
		return t.bestEffort(ctx, left, err)
	}
	t.strategy(StrategyStopQueueing)
	if err := awaitGrace(ctx); err != nil {
		return err
	}
	return t.empty(ctx, left)
}

var errNoOther = errors.New("no other member gets the traffic")

// bestEffort serves what is there and closes.
func (t *turn) bestEffort(ctx context.Context, left []*socket, why error) error {
	t.strategy(StrategyBestEffort)
	t.lossy(why.Error())
	t.flooded = true
	// What is new after this moment is not waited for, or a busy listener
	// would never end.
	if t.refs != nil {
		t.refs.close()
		t.refs = nil
	}
	return t.empty(ctx, left)
}

// empty waits until left hold nothing, and closes them.
func (t *turn) empty(ctx context.Context, left []*socket) error {
	t.report.HalfOpen += t.snapshot(left)
	for len(left) > 0 {
		quiet, err := t.awaitQuiet(ctx, left, nil)
		if err != nil {
			return err
		}
		t.shut(quiet...)
		left = remaining(left, quiet)
	}
	return nil
}

// canStop reports whether stopQueueing works.
func (t *turn) canStop(s *socket) bool {
	return !t.g.udp && stopQueueing(s.conn) == nil && resumeQueueing(s.conn) == nil
}

// closeNow closes socks with what they hold.
func (t *turn) closeNow(ctx context.Context, socks []*socket, cause error) error {
	if t.report.Strategy == "" {
		t.strategy(StrategyBestEffort)
	}
	if !t.migrate || t.report.Strategy != StrategySteerMigrate {
		t.lossy(cause.Error())
	}
	t.report.Left += t.heldBy(socks)
	t.shut(t.g.present(socks)...)
	if ctx.Err() != nil {
		cause = fmt.Errorf("%w: %w", ErrIncomplete, cause)
	}
	return cause
}
