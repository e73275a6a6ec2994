package reuseport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// errChanged means that members of other processes came or went, so that what was
// planned by their places has to be planned again.
var errChanged = errors.New("the group has changed")

// maxTries is how often steering is tried. A probe can lose its way when the
// machine is very busy.
const maxTries = 3

// turn is one operation on a group of the kernel. It has the token of its
// localGroup, and the group lock.
type turn struct {
	g      *localGroup
	report *Report
	key    groupKey

	dc      *diag.Conn // nil where sock_diag can't be asked
	blind   error      // why
	refs    *refTable  // nil where the references of a listener can't be read
	migrate bool       // net.ipv4.tcp_migrate_req

	began      bool // has the token
	start      time.Time
	busy       time.Time           // when a leaving member last held something
	handshakes map[diag.Tuple]bool // of the port, to be waited for; only without refs
	flooded    bool                // datagrams come all the time: readers must not be held
	errs       []error             // of closing
}

// begin waits for a turn. via is one of the members. The caller ends the turn,
// also after an error.
func (g *localGroup) begin(ctx context.Context, via *socket, report *Report) (*turn, error) {
	t := &turn{g: g, report: report, start: time.Now(), busy: time.Now()}
	if err := t.open(via); err != nil {
		return t, err
	}
	defer func() { report.Queued += time.Since(t.start) }()
	select {
	case g.token <- struct{}{}:
	default:
		select {
		case g.token <- struct{}{}:
		case <-ctx.Done():
			return t, fmt.Errorf("wait for the turn of the group: %w", context.Cause(ctx))
		}
	}
	t.began = true
	if g.lock != nil {
		return t, nil
	}
	var err error
	g.lock, err = takeGroupLock(ctx, t.key.lockName())
	return t, err
}

func (t *turn) end() {
	if t.began {
		t.g.unlock()
		<-t.g.token
	}
	if t.refs != nil {
		t.refs.close()
	}
	if t.dc != nil {
		_ = t.dc.Close() // only answers were read
	}
}

// open finds out what this machine allows.
func (t *turn) open(via *socket) (err error) {
	if err := t.openRefs(via); err != nil {
		return err
	}
	if !t.g.udp {
		b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
		t.migrate = err == nil && bytes.HasPrefix(b, []byte("1"))
	}
	if t.dc, err = diag.Dial(); err != nil {
		t.dc, t.blind = nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		return nil
	}
	inodes, _, err := t.group()
	if err == nil && !slices.Contains(inodes, via.inode) {
		err = fmt.Errorf("sock_diag does not list the socket, which is in another network namespace or not SO_REUSEPORT: %w", errors.ErrUnsupported)
	}
	if err != nil {
		_ = t.dc.Close() // only answers were read
		t.dc, t.blind = nil, err
		return nil
	}
	return nil
}

// openRefs opens the table of references, where it has via.
func (t *turn) openRefs(via *socket) (err error) {
	if t.key, err = groupKeyOf(via.conn); err != nil || t.g.udp {
		return err
	}
	refs, err := openRefs(t.key.query.Family)
	if err != nil {
		return nil
	}
	if _, err := refs.pending(via.inode); err != nil {
		refs.close() // the table of another network namespace
		return nil
	}
	t.refs = refs
	return nil
}

// group returns the kernel's group as inodes, and how many are of others.
func (t *turn) group() (inodes []uint32, others int, err error) {
	list, err := t.key.members(t.dc)
	if err != nil {
		return nil, 0, err
	}
	own := t.g.sockets()
	for _, m := range list {
		inodes = append(inodes, m.Inode)
		if !slices.ContainsFunc(own, func(s *socket) bool { return s.inode == m.Inode }) {
			others++
		}
	}
	slices.Sort(inodes)
	return inodes, others, nil
}

// is reports whether the kernel's group is inodes still.
func (t *turn) is(inodes []uint32) bool {
	now, _, err := t.group()
	return err == nil && slices.Equal(now, inodes)
}

// locate returns the inodes of the group by index, 0 for members of others.
func (t *turn) locate(ctx context.Context, inodes []uint32) ([]uint32, error) {
	p, err := newProber(t)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		order, err := p.locate(ctx, t.g.sockets(), inodes, t.g.prog)
		switch {
		case err != nil && !t.is(inodes):
			return nil, errChanged // a probe that fails for that says nothing
		case err == nil || try == maxTries || !errors.Is(err, ErrNotSteered):
			return order, err
		}
	}
}

// attach makes prog the group's.
func (t *turn) attach(prog program, via *socket) error {
	t.g.prog = prog
	return attach(via.conn, &prog)
}

// detach takes the program off the group.
func (t *turn) detach(via *socket) error {
	t.g.prog = program{}
	return detach(via.conn)
}

func (t *turn) lossy(reason string) {
	t.report.LossPossible = true
	t.report.note(reason)
}

// strategy records s if it is weaker than what was recorded before.
func (t *turn) strategy(s Strategy) {
	rank := []Strategy{"", StrategySteer, StrategySteerMigrate, StrategyHide, StrategyStopQueueing, StrategyMigrate, StrategyBestEffort}
	if slices.Index(rank, s) > slices.Index(rank, t.report.Strategy) {
		t.report.Strategy = s
	}
}

// steer changes the steering of the group.
func (g *localGroup) steer(ctx context.Context, s Steering) error {
	own := g.sockets()
	if len(own) == 0 {
		return ErrClosed
	}
	t, err := g.begin(ctx, own[0], new(Report))
	defer t.end()
	switch {
	case err != nil:
		return err
	case t.blind != nil:
		return t.blind
	case len(g.sockets()) == 0:
		return ErrClosed
	}
	if err := t.apply(ctx, s); err != nil {
		return fmt.Errorf("steer by %v: %w", s, err)
	}
	g.setCurrent(s)
	return nil
}

// errNoTarget says that all members are to be kept from the traffic.
var errNoTarget = fmt.Errorf("no member is left to get the traffic: %w", ErrNotSteered)

// apply puts the program for s on the group.
func (t *turn) apply(ctx context.Context, s Steering) error {
	own := t.g.sockets()
	if s.kind == steerHash {
		return t.detach(own[0])
	}
	prog := program{sticky: t.g.udp, byCPU: s.kind == steerCPU}
	if s.kind == steerWeights {
		var err error
		if prog.weights, err = s.shares(len(own)); err != nil {
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
		if try >= maxTries && ctx.Err() != nil {
			// It is not known whose places the program has.
			t.g.setCurrent(Hash())
			return errors.Join(fmt.Errorf("the members of the group have changed during each of %d tries: %w", try, context.Cause(ctx)), t.detach(own[0]))
		}
		inodes, _, err := t.group()
		if err != nil {
			return err
		}
		order, err := t.locate(ctx, inodes)
		if err == errChanged {
			continue
		}
		if err != nil {
			return err
		}
		if s.kind == steerAway {
			if prog.targets = places(order, away); len(prog.targets) == 0 {
				return errNoTarget
			}
		} else {
			prog.targets = nil
			for _, s := range own {
				prog.targets = append(prog.targets, slices.Index(order, s.inode))
			}
		}
		err = t.attach(prog, own[0])
		if t.is(inodes) {
			return err
		}
	}
}

// places returns the indexes of all members of order but those of away.
func places(order []uint32, away []*socket) (at []int) {
	for i, inode := range order {
		if !slices.ContainsFunc(away, func(s *socket) bool { return s.inode == inode }) {
			at = append(at, i)
		}
	}
	return at
}

// restore puts the steering of the remaining members back.
func (t *turn) restore(ctx context.Context) error {
	own := t.g.sockets()
	if len(own) == 0 {
		return nil
	}
	s := t.g.current()
	switch s.kind {
	case steerAway:
		// Not from those that have left.
		s.away = slices.DeleteFunc(slices.Clone(s.away), func(m Member) bool { return !slices.Contains(own, m.member()) })
		if len(s.away) == 0 {
			s = Hash()
		}
	case steerWeights:
		if len(s.weights) != len(own) {
			s = Hash() // they were given for other members
		}
	}
	err := t.apply(ctx, s)
	if err == errNoTarget { // the members that had the traffic have left
		s = Hash()
		err = t.apply(ctx, s)
	}
	t.g.setCurrent(s)
	return err
}
