package handoff

import (
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
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
		c, err := unixConn(fd)
		if err != nil {
			u.log.Warn("older predecessor", "pid", m.PID, "error", err)
			return false
		}
		older := session.Follow(session.NewWireLink(fdpass.New(c), hangTimeout), m)
		u.wg.Go(func() { u.follow(older, nil) }) // ends with that conversation
		return true
	}
	u.mu.Lock()
	at := 0
	for at < len(u.followings) && u.followings[at].f.Predecessor().Generation < f.Predecessor().Generation {
		at++
	}
	u.followings = append(u.followings[:at], append([]*following{w}, u.followings[at:]...)...)
	closing := u.phase >= phaseLingering
	u.mu.Unlock()
	if closing {
		f.Stop() // nobody passes it on any more
	}
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
	for _, f := range all {
		u.mu.Lock()
		f.passed = true
		u.mu.Unlock()
		if !f.f.Detach() {
			continue // it had ended
		}
		<-f.stopped
		link := f.f.Link()
		w := f.f.Predecessor()
		if wl, ok := link.(*session.WireLink); ok {
			err := wl.Lend(func(fd int) error {
				return l.Adopt(wire.Adopt{Version: w.Version, Generation: w.Generation, PID: w.PID, Build: w.Build}, fd)
			})
			if err != nil {
				u.log.Warn("pass on an older predecessor", "pid", w.PID, "error", err)
			}
		}
		_ = link.Close() // the successor has it, or nobody
	}
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
