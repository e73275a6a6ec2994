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

// leave is one operation in which members of a crew leave.
type leave struct {
	c       *crew
	site    site
	dc      *diag.Conn
	probe   *prober // nil where the own address can't be reached
	refs    *refTable
	migrate bool // net.ipv4.tcp_migrate_req
	report  *Report

	start   time.Time
	counted map[*socket]int64   // accepted at the start
	busy    time.Time           // when something was seen to be left
	crowded bool                // datagrams go on coming: readers must not be held
	emptied time.Time           // when nothing was unread any more; zero while something is
	under   map[diag.Tuple]bool // handshakes that were under way; only without refs
	errs    []error             // of closing
}

// remove lets sockets leave the group. With shut they are closed; without, the
// traffic stays turned away from them, and they are quiet on return.
func (c *crew) remove(ctx context.Context, sockets []*socket, shut bool) (report Report, err error) {
	start := time.Now()
	defer func() { report.Duration = time.Since(start) }()
	if err := c.begin(ctx); err != nil {
		report.Queued = time.Since(start)
		return report, c.giveUp(&report, sockets, shut, err)
	}
	defer c.end()
	own := c.members()
	there := slices.DeleteFunc(slices.Clone(sockets), func(s *socket) bool { return !slices.Contains(own, s) })
	if len(there) == 0 || len(there) < len(sockets) && !shut {
		return report, ErrClosed
	}
	sockets = there // those that have left by themselves are no reason to keep the others
	l := &leave{c: c, report: &report, start: start, busy: start, counted: make(map[*socket]int64)}
	for _, s := range sockets {
		l.counted[s] = s.count.Load()
	}
	blind := l.open(sockets[0])
	if blind != nil && (!shut || !l.openBlind(sockets[0])) {
		return report, c.giveUp(&report, sockets, shut, blind)
	}
	defer l.close()

	if c.lease == nil {
		switch c.lease, err = takeLease(ctx, l.site.leaseName()); {
		case errors.Is(err, errSquatted):
			l.lossy(err.Error())
		case err != nil:
			report.Queued = time.Since(start)
			return report, c.giveUp(&report, sockets, shut, fmt.Errorf("wait for the turn of the group: %w", err))
		}
	}
	report.Queued = time.Since(start)
	defer c.release() // after the program was put back
	c.leaving.Add(1)
	defer c.leaving.Add(-1)
	switch {
	case blind != nil:
		err = errors.Join(append(l.errs, l.blindly(ctx, sockets, blind))...)
	case shut:
		err = l.all(ctx, sockets)
	default:
		err = l.quiesce(ctx, sockets)
	}
	for s, n := range l.counted {
		report.Accepted += s.count.Load() - n
	}
	if shut && len(c.members()) > 0 {
		if rerr := l.restore(ctx); rerr != nil {
			err = errors.Join(err, fmt.Errorf("restore the steering: %w", rerr))
		}
	}
	return report, err
}

// giveUp is the end of a removal that could not begin: what was to be closed is
// closed.
func (c *crew) giveUp(report *Report, sockets []*socket, shut bool, cause error) error {
	if !shut {
		return cause
	}
	report.Strategy = StrategyBestEffort
	report.LossPossible = true
	report.note(cause.Error())
	err := cause
	if errors.Is(cause, context.DeadlineExceeded) || errors.Is(cause, context.Canceled) {
		err = fmt.Errorf("%w: %w", ErrIncomplete, cause)
	}
	l := &leave{c: c, report: report}
	if site, serr := siteOf(sockets[0].conn); serr == nil && !c.udp {
		if l.refs, serr = openRefs(uint8(site.query.Family)); serr == nil {
			defer l.refs.close()
		}
	}
	l.countLeft(sockets)
	for _, s := range sockets {
		if c.drop(s) {
			report.Members++
			err = errors.Join(err, s.shut())
		}
	}
	return err
}

func (l *leave) open(s *socket) error {
	var err error
	if l.site, err = siteOf(s.conn); err != nil {
		return err
	}
	if l.dc, err = diag.Dial(); err != nil {
		return err
	}
	group, err := l.site.list(l.dc)
	if err == nil && !slices.ContainsFunc(group, func(m diag.Socket) bool { return m.Inode == s.inode }) {
		err = fmt.Errorf("sock_diag does not list the socket, which is in another network namespace or not SO_REUSEPORT: %w", errors.ErrUnsupported)
	}
	if err != nil {
		l.close()
		return err
	}
	l.probe, _ = newProber(l.c, &l.site, l.dc) // nil is the answer
	if l.c.udp {
		return nil
	}
	l.migrate = migrateReq()
	l.refs, _ = openRefs(uint8(l.site.query.Family)) // likewise
	return nil
}

// openBlind is open where sock_diag can't be asked, because a sandbox has no
// AF_NETLINK, for one. It reports whether s can leave that way.
func (l *leave) openBlind(s *socket) bool {
	l.dc, l.probe = nil, nil
	if l.site == (site{}) {
		return false // open has not even come that far
	}
	if l.c.udp {
		return true
	}
	l.migrate = migrateReq()
	refs, err := openRefs(uint8(l.site.query.Family))
	if err != nil {
		return true
	}
	if _, err := refs.pending(s.inode); err != nil {
		refs.close() // the table of another network namespace
		return true
	}
	l.refs = refs
	return true
}

// blindly lets sockets leave where the group can't be looked at.
func (l *leave) blindly(ctx context.Context, sockets []*socket, why error) error {
	if s := l.c.steeredBy(); s != nil {
		if err := l.byOther(ctx, s, sockets, nil); err == nil || errors.Is(err, ErrIncomplete) {
			return err
		}
	}
	l.c.setCurrent(Hash()) // what is named by its place can't be found again
	return l.unsteered(ctx, sockets, why)
}

func (l *leave) close() {
	if l.refs != nil {
		l.refs.close()
	}
	if l.dc != nil {
		_ = l.dc.Close() // only answers were read
	}
}

func migrateReq() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	return err == nil && bytes.HasPrefix(b, []byte("1"))
}

func (l *leave) lossy(reason string) {
	if !l.report.LossPossible {
		l.report.LossPossible = true
	}
	l.report.note(reason)
}

// group returns the kernel's group as inodes, and how many are of others.
func (l *leave) group() (inodes []uint32, others int, err error) {
	list, err := l.site.list(l.dc)
	if err != nil {
		return nil, 0, err
	}
	own := l.c.members()
	for _, m := range list {
		inodes = append(inodes, m.Inode)
		if !slices.ContainsFunc(own, func(s *socket) bool { return s.inode == m.Inode }) {
			others++
		}
	}
	slices.Sort(inodes)
	return inodes, others, nil
}

// maxTries is how often steering is tried. A probe can lose its way when the
// machine is very busy.
const maxTries = 3

// all lets sockets leave, in as many steps as it takes.
func (l *leave) all(ctx context.Context, sockets []*socket) error {
	failed := 0
	for {
		left := slices.DeleteFunc(slices.Clone(sockets), func(s *socket) bool { return !slices.Contains(l.c.members(), s) })
		if len(left) == 0 {
			return errors.Join(l.errs...)
		}
		if ctx.Err() != nil {
			l.note(StrategyBestEffort)
			return errors.Join(append(l.errs, l.abandon(left, context.Cause(ctx)))...)
		}
		inodes, others, err := l.group()
		if err != nil {
			if err := l.bestEffort(ctx, left, err); err != nil {
				return errors.Join(append(l.errs, err)...)
			}
			continue
		}
		if others == 0 && len(left) == len(l.c.members()) {
			if len(left) > 1 && !l.canStop(left) {
				left = left[:len(left)-1] // it gets the traffic while the others go
			} else {
				return errors.Join(append(l.errs, l.last(ctx, left))...)
			}
		}
		step := l.steered
		if s := l.c.steeredBy(); s != nil {
			step = func(ctx context.Context, left []*socket, inodes []uint32, _ int) error {
				return l.byOther(ctx, s, left, inodes)
			}
		}
		if err := step(ctx, left, inodes, others); err != nil {
			if !errors.Is(err, ErrIncomplete) {
				// A probe that failed because the group changed under it
				// says nothing.
				if now, _, gerr := l.group(); errors.Is(err, errChanged) || gerr == nil && !slices.Equal(now, inodes) {
					continue
				}
				if failed++; failed < maxTries && !errors.Is(err, errors.ErrUnsupported) {
					continue
				}
				err = l.unsteered(ctx, left, err)
			}
			if err != nil {
				l.hurry(sockets)
				return errors.Join(append(l.errs, err)...)
			}
		}
	}
}

// note records a strategy, keeping the weakest.
func (l *leave) note(s Strategy) {
	rank := []Strategy{"", StrategySteer, StrategySteerMigrate, StrategySteerer, StrategyStopQueueing, StrategyMigrate, StrategyBestEffort}
	if slices.Index(rank, s) > slices.Index(rank, l.report.Strategy) {
		l.report.Strategy = s
	}
}

// quiesce turns the traffic away from sockets and returns when they have
// nothing left.
func (l *leave) quiesce(ctx context.Context, sockets []*socket) error {
	if l.c.steeredBy() != nil {
		// Its program would be replaced, and Steer could not put it back.
		return fmt.Errorf("turn the traffic away: the group has a Steerer: %w", errors.ErrUnsupported)
	}
	s := l.c.current()
	if !s.isAway(sockets) {
		s = Steering{kind: steerAway, away: slices.Clone(s.away)}
		for _, sock := range sockets {
			s.away = append(s.away, sock)
		}
	}
	for try := 0; ; try++ {
		if err := restless(ctx, try); err != nil {
			return err
		}
		inodes, _, err := l.group()
		if err != nil {
			return err
		}
		if err := l.apply(ctx, s); err != nil {
			return err
		}
		l.note(StrategySteer)
		l.c.setCurrent(s)
		if err := awaitGrace(ctx); err != nil {
			return err
		}
		err = l.wait(ctx, sockets, false, inodes)
		if err == nil {
			if now, _, gerr := l.group(); gerr != nil || !slices.Equal(now, inodes) {
				err = errors.Join(errChanged, gerr)
			}
		}
		if !errors.Is(err, errChanged) {
			return err
		}
	}
}

// restore puts the steering of the remaining members back.
func (l *leave) restore(ctx context.Context) error {
	if l.c.steeredBy() != nil {
		return nil // it has never left
	}
	s := l.c.current()
	if s.kind == steerAway {
		// Not from those that have left.
		s.away = slices.DeleteFunc(slices.Clone(s.away), func(m Member) bool {
			return !slices.Contains(l.c.members(), m.member())
		})
		if len(s.away) == 0 {
			s = Hash()
		}
		l.c.setCurrent(s)
	}
	if s.kind == steerWeights && len(s.weights) != len(l.c.members()) {
		s = Hash() // they were given for other members
		l.c.setCurrent(s)
	}
	err := l.apply(ctx, s)
	if err == errNobody { // who had it has left
		l.c.setCurrent(Hash())
		return l.apply(ctx, Hash())
	}
	return err
}
