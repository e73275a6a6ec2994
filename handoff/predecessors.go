package handoff

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A predecessor is a process that lingers, and the conversation with it.
type predecessor struct {
	f       *session.Following
	stopped chan struct{} // closed when Run has returned

	last   atomic.Pointer[wire.Linger] // its last message
	passed atomic.Bool                 // our successor has the conversation, or gets it now
	ending atomic.Bool                 // it has been asked to end
}

func (p *predecessor) generation() uint64 { return p.f.Predecessor().Generation }

// predecessors are those that linger, oldest first.
type predecessors struct {
	mu  sync.Mutex
	all []*predecessor
}

func (ps *predecessors) add(p *predecessor) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	at := 0
	for at < len(ps.all) && ps.all[at].generation() < p.generation() {
		at++
	}
	ps.all = slices.Insert(ps.all, at, p)
}

func (ps *predecessors) remove(p *predecessor) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.all = slices.DeleteFunc(ps.all, func(o *predecessor) bool { return o == p })
}

func (ps *predecessors) list() []*predecessor {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return slices.Clone(ps.all)
}

// excess returns the oldest that are more than limit and have not been asked to end.
// The caller asks them.
func (ps *predecessors) excess(limit int) []*predecessor {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var end []*predecessor
	for _, p := range ps.all[:max(0, len(ps.all)-limit)] {
		if !p.ending.Swap(true) {
			end = append(end, p)
		}
	}
	return end
}

// describe returns what the predecessors have said of themselves.
func (ps *predecessors) describe() []Process {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	all := make([]Process, 0, len(ps.all))
	for _, p := range ps.all {
		w, last := p.f.Predecessor(), p.last.Load()
		all = append(all, Process{
			PID: int(w.PID), Version: w.Build,
			Generation: w.Generation, Open: last.Open, Moved: last.Moved, Remaining: last.Remaining,
		})
	}
	return all
}

// follow serves the conversation with a predecessor until that is gone.
func (u *Upgrader) follow(f *session.Following) { u.attend(u.enroll(f)) }

// enroll adds a predecessor. The caller calls attend next.
func (u *Upgrader) enroll(f *session.Following) *predecessor {
	p := &predecessor{f: f, stopped: make(chan struct{})}
	p.last.Store(new(wire.Linger))
	f.Deliver = func(name string, state []byte, fd int) bool {
		return u.deliver(p.generation(), name, state, fd)
	}
	f.Account = u.receiveAccount
	f.Told = func(m wire.Linger) { p.last.Store(&m) }
	f.Adopt = u.adopt
	u.predecessors.add(p)
	if life := u.life(); life.Done() && u.successorLink() == nil {
		f.Stop() // no successor can take the conversation
	}
	return p
}

// receiveAccount takes the account of the predecessor, which has left the sockets.
func (u *Upgrader) receiveAccount(m wire.Account) {
	u.keepPID()
	u.receiveHistory(m)
}

// keepPID has the PID file name this process. A predecessor that had no answer to Commit
// for long has served again meanwhile, and the file has named that.
func (u *Upgrader) keepPID() {
	if life := u.life(); life.Done() || u.underWay() != nil {
		return
	}
	if err := u.pid.Write(); err != nil {
		u.log.Error("the PID file does not name this process", "error", err)
	}
}

// adopt takes the conversation with an older predecessor, which owns fd, from ours.
func (u *Upgrader) adopt(m wire.Adopt, fd int) bool {
	c, err := fdx.UnixConn(fd, "conversation")
	if err != nil {
		u.log.Warn("did not take over the connection to an older predecessor", "pid", m.PID, "error", err)
		return false
	}
	// It is enrolled before our predecessor gets the answer, after which that can end.
	p := u.enroll(session.Follow(session.NewWireLink(fdpass.New(c), u.cfg.hang), m))
	u.wg.Go(func() { u.attend(p) }) // ends with that conversation
	if l := u.successorLink(); l != nil {
		u.passOver(l, p) // passOn may have missed it
	}
	return true
}

// attend serves the conversation with an enrolled predecessor to its end.
func (u *Upgrader) attend(p *predecessor) {
	u.limitLingering()
	bye, clean := p.f.Run()
	close(p.stopped)
	u.predecessors.remove(p)
	if p.passed.Load() {
		return
	}
	u.keepPID()
	w := p.f.Predecessor()
	u.history.predecessorDone(w.Generation, bye)
	u.log.Info("predecessor has ended", "pid", w.PID, "generation", w.Generation, "moved", bye.Moved, "cut", bye.Cut, "clean", clean)
	u.flows.Look()
	u.emit(Event{Kind: EventPredecessorDone})
}

// limitLingering asks the oldest predecessors to end where too many linger.
func (u *Upgrader) limitLingering() {
	if u.cfg.MaxLingering < 0 {
		return
	}
	for _, p := range u.predecessors.excess(u.cfg.MaxLingering) {
		u.log.Warn("too many predecessors linger: the oldest ends", "pid", p.f.Predecessor().PID, "limit", u.cfg.MaxLingering)
		p.f.End("more than MaxLingering predecessors linger")
	}
}

// successorLink returns the conversation with a committed successor, or nil.
func (u *Upgrader) successorLink() (l *session.Lingering) {
	u.owner.ask(func(s *state) { l = s.lingering })
	return l
}

// passOn gives the conversations with older predecessors to our successor, oldest
// first: the process that serves talks to all that linger.
func (u *Upgrader) passOn(l *session.Lingering) {
	for _, p := range u.predecessors.list() {
		u.passOver(l, p)
	}
}

// passOver is passOn for one of them, once.
func (u *Upgrader) passOver(l *session.Lingering, p *predecessor) {
	if p.passed.Swap(true) || !p.f.Detach() {
		return // the successor has it, or it has ended
	}
	<-p.stopped
	link, w := p.f.Link(), p.f.Predecessor()
	if wl, ok := link.(*session.WireLink); ok {
		err := wl.Lend(func(fd int) error {
			return l.Adopt(wire.Adopt{Version: w.Version, Generation: w.Generation, PID: w.PID, Build: w.Build}, fd)
		})
		if err != nil {
			u.log.Warn("did not pass on the connection to an older predecessor", "pid", w.PID, "error", err)
		}
	}
	_ = link.Close() // the successor has a copy, or has refused it
}

// unfollow ends all conversations with predecessors.
func (u *Upgrader) unfollow() {
	for _, p := range u.predecessors.list() {
		p.f.Stop()
	}
}
