package handoff

import (
	"context"
	"fmt"
	"sync"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
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
	parted bool          // the successor has closed its listeners by then; valid once gone is closed
	peer   int           // the successor's process ID, 0 if it isn't known
}

// A departure yields when another process has closed its members of a kind,
// which have these inodes. The channel is closed when ctx ends as well.
type departure func(ctx context.Context, kind wire.SocketKind, inodes []uint64) <-chan struct{}

// serves reports whether e goes on serving in probation: the successor has a
// member of its own.
func (up *upgrade) serves(e *wire.Socket) bool { return up.drain != nil && sockets.Inet(e) }

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
	if limit := maxLoans * len(d.u.table.All()); n+len(fds) > limit {
		_ = fdx.Close(fds...) // of no use
		return fmt.Errorf("%d sockets lent, %d are allowed", n+len(fds), limit)
	}
	for i := range fds {
		if err := checkMember(fds[i]); err != nil {
			_ = fdx.Close(fds[i:]...) // of no use
			return fmt.Errorf("%s: %w", entries[i].Bound, err)
		}
		if !sockets.Inet(&entries[i]) || len(d.u.table.Bound(&entries[i])) == 0 {
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
	var ours []*sockets.Socket
	for _, s := range d.u.table.All() {
		if sockets.Inet(&s.Entry) && !s.Joins() {
			ours = append(ours, s)
		}
	}
	for _, group := range crowds(ours) {
		d.wg.Go(func() { d.quiesce(group) }) // ends with its work or with cancel
	}
}

func (d *drain) quiesce(group []*sockets.Socket) {
	report := GroupReport{Network: group[0].Entry.Network, Address: group[0].Entry.Bound}
	c, err := newCrowd(d.ctx, group, d.u.cfg)
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
	d.u.takeIn(d.guests, loans, crowds, func(ctx context.Context, kind wire.SocketKind, inodes []uint64) <-chan struct{} {
		return async(func() {
			select {
			case <-d.gone:
				if !d.parted || kind == wire.KindPacket { // it may answer yet
					released(ctx, d.peer, inodes)
				}
			case <-ctx.Done():
			}
		})
	})
}

// failed ends the upgrade, which was not committed. parted says that the
// successor has closed its listeners.
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
