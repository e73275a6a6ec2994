package handoff

import (
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A following is a predecessor that still lingers, and our conversation with it.
type following struct {
	f       *session.Following
	last    wire.Linger   // guarded by Upgrader.mu
	passed  bool          // to our successor; likewise
	ending  bool          // it was asked to end; likewise
	stopped chan struct{} // closed when Run has returned
}

// Predecessor describes a process that lingers after its successor's commit.
type Predecessor struct {
	Process
	Generation uint64 `json:"generation"`
	Open       uint64 `json:"open"`  // tracked connections that are still open
	Moved      uint64 `json:"moved"` // passed to its successor
	// Remaining is the time until its linger limit, as it told last; negative
	// if it has none.
	Remaining time.Duration `json:"remaining"`
}

// Lingering returns the predecessors that still linger, oldest first.
func (u *Upgrader) Lingering() []Predecessor {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []Predecessor
	for _, f := range u.followings {
		w := f.f.Predecessor()
		all = append(all, Predecessor{
			Process:    Process{PID: int(w.PID), Version: w.Build},
			Generation: w.Generation, Open: f.last.Open, Moved: f.last.Moved, Remaining: f.last.Remaining,
		})
	}
	return all
}

// follow watches a predecessor until it is gone.
// lending is nil, unless f is who has lent us its members.
func (u *Upgrader) follow(f *session.Following, lending *lending) {
	u.attend(u.enroll(f, lending), lending)
}

// enroll has passOn find a predecessor, whom attend has to watch then.
func (u *Upgrader) enroll(f *session.Following, lending *lending) *following {
	w := &following{f: f, stopped: make(chan struct{})}
	f.Deliver = func(name string, state []byte, fd int) bool {
		return u.deliver(f.Predecessor().Generation, name, state, fd)
	}
	f.Account = u.learnHistory
	f.Told = func(m wire.Linger) {
		u.mu.Lock()
		w.last = m
		u.mu.Unlock()
		lending.linger(m)
	}
	f.Adopt = func(m wire.Adopt, fd int) bool {
		c, err := fdx.UnixConn(fd, "conversation")
		if err != nil {
			u.log.Warn("older predecessor", "pid", m.PID, "error", err)
			return false
		}
		older := session.Follow(session.NewWireLink(fdpass.New(c), hangTimeout), m)
		w := u.enroll(older, nil)            // before the sender hears of it, and can end
		u.wg.Go(func() { u.attend(w, nil) }) // ends with that conversation
		u.mu.Lock()
		l := u.lingering
		u.mu.Unlock()
		if l != nil {
			u.passOver(l, w) // passOn may have been there
		}
		return true
	}
	u.mu.Lock()
	at := 0
	for at < len(u.followings) && u.followings[at].f.Predecessor().Generation < f.Predecessor().Generation {
		at++
	}
	u.followings = append(u.followings[:at], append([]*following{w}, u.followings[at:]...)...)
	closing := u.phase >= phaseLingering && u.lingering == nil
	u.mu.Unlock()
	if closing {
		f.Stop() // there is nobody to pass it on to
	}
	return w
}

// attend watches a predecessor that is enrolled until it is gone.
func (u *Upgrader) attend(w *following, lending *lending) {
	f := w.f
	u.limitLingering()
	bye, clean := f.Run()
	lending.ended()
	close(w.stopped)
	u.mu.Lock()
	for i, o := range u.followings {
		if o == w {
			u.followings = append(u.followings[:i], u.followings[i+1:]...)
			break
		}
	}
	passed := w.passed
	u.mu.Unlock()
	if passed {
		return
	}
	p := f.Predecessor()
	u.finishHistory(p.Generation, bye)
	u.log.Info("predecessor is done", "pid", p.PID, "generation", p.Generation, "moved", bye.Moved, "cut", bye.Cut, "clean", clean)
	u.emit(Event{Kind: EventPredecessorDone})
}

// limitLingering asks the oldest predecessors to end where too many linger.
func (u *Upgrader) limitLingering() {
	if u.cfg.MaxLingering < 0 {
		return
	}
	u.mu.Lock()
	var end []*following
	for _, f := range u.followings[:max(0, len(u.followings)-u.cfg.MaxLingering)] {
		if !f.ending {
			f.ending = true
			end = append(end, f)
		}
	}
	u.mu.Unlock()
	for _, f := range end {
		u.log.Warn("too many predecessors linger: the oldest ends", "pid", f.f.Predecessor().PID, "limit", u.cfg.MaxLingering)
		f.f.End("more than MaxLingering predecessors linger")
	}
}

// passOn gives the conversations with older predecessors to our successor,
// oldest first, so that whoever serves talks to all that linger.
func (u *Upgrader) passOn(l *session.Lingering) {
	u.mu.Lock()
	all := append([]*following(nil), u.followings...)
	u.mu.Unlock()
	for _, w := range all {
		u.passOver(l, w)
	}
}

// passOver is passOn for one of them, once.
func (u *Upgrader) passOver(l *session.Lingering, w *following) {
	u.mu.Lock()
	passed := w.passed
	w.passed = true
	u.mu.Unlock()
	if passed || !w.f.Detach() {
		return // it had ended
	}
	<-w.stopped
	link := w.f.Link()
	p := w.f.Predecessor()
	if wl, ok := link.(*session.WireLink); ok {
		err := wl.Lend(func(fd int) error {
			return l.Adopt(wire.Adopt{Version: p.Version, Generation: p.Generation, PID: p.PID, Build: p.Build}, fd)
		})
		if err != nil {
			u.log.Warn("pass on an older predecessor", "pid", p.PID, "error", err)
		}
	}
	_ = link.Close() // the successor has it, or nobody
}

// unfollow ends all conversations with predecessors.
func (u *Upgrader) unfollow() {
	u.mu.Lock()
	all := append([]*following(nil), u.followings...)
	u.mu.Unlock()
	for _, f := range all {
		f.f.Stop()
	}
}
