package flows

import (
	"errors"
	"slices"
	"time"
)

// lookInterval is how often the current process looks whether the lanes of others are
// free, while others have some.
const lookInterval = 100 * time.Millisecond

// A state is which lane gets new flows. Each switch has a number, its turn, so that a
// process that was stopped while it switched can see that others have done so since.
type state struct {
	turn uint32
	lane int
}

var errTaken = errors.New("another process has taken the address meanwhile")

// Serve makes the lane of this process the current one. It returns when the kernel has
// been seen to do it, or with an error, and then it is as it was. It is an error if
// another process has taken the address since this one was the current one, or came: its
// successor's one switch does not count, which Serve undoes.
func (s *Set) Serve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	defer s.Look()
	return s.t.inTurn(s.serve)
}

func (s *Set) serve() error {
	was, err := s.t.state()
	if err != nil {
		return err
	}
	now := state{was.turn + 1, s.lane}
	if was.lane != s.lane && was.turn > s.limit || !s.t.swap(was, now) {
		return errTaken
	}
	if was.lane != s.lane {
		s.before = was.lane
	}
	s.limit = now.turn + 1
	if err = s.attach(); err == nil {
		err = s.verify(&s.attached, s.lane)
	}
	if err != nil && s.t.swap(now, state{now.turn + 1, was.lane}) {
		err = errors.Join(err, s.attach())
	}
	return err
}

// Undo gives the address back to the process that had it before Serve, if no other
// process has taken it since.
func (s *Set) Undo() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	return s.t.inTurn(func() error {
		was, err := s.t.state()
		if err != nil || was.lane != s.lane || s.before == s.lane || !s.t.swap(was, state{was.turn + 1, s.before}) {
			return err
		}
		return s.attach()
	})
}

// Own has this process keep the address: from now on Serve of its predecessor fails.
func (s *Set) Own() error {
	s.mu.Lock()
	kept := s.closed
	for !kept {
		was, err := s.t.state()
		if err != nil || was.lane != s.lane {
			break
		}
		now := state{was.turn + 1, s.lane}
		if kept = s.t.swap(was, now); kept {
			s.limit = now.turn + 1
		}
	}
	s.mu.Unlock()
	if !kept {
		return s.Serve()
	}
	s.Look() // the predecessor may have ended
	return nil
}

// attach makes the program what the table says. A process can be stopped here at any time:
// when it goes on, it sees that the table has changed, and attaches the newer program.
func (s *Set) attach() error {
	for {
		now, err := s.t.state()
		if err != nil {
			return err
		}
		changes := s.t.changes()
		r, err := s.route(now.lane)
		if err != nil {
			return err
		}
		if err := s.g.attach(r); err != nil {
			return err
		}
		s.attached = *r
		if then, err := s.t.state(); err != nil || then == now && s.t.changes() == changes {
			return err
		}
	}
}

// route is what the program has to do now.
func (s *Set) route(current int) (*route, error) {
	live, err := s.live()
	if err != nil {
		return nil, err
	}
	r := &route{ids: s.t.IDs, key: s.t.Key, lanes: s.n, live: live, current: current}
	for _, lane := range live {
		if lane == current {
			continue
		}
		clients, err := s.t.kept(lane)
		if err != nil {
			return nil, err
		}
		for _, c := range clients {
			r.kept = append(r.kept, kept{c, lane})
		}
	}
	return r, nil
}

// live returns the lanes that processes have.
func (s *Set) live() ([]int, error) {
	var live []int
	for lane := range s.n {
		taken := lane == s.lane
		if !taken {
			var err error
			if taken, err = s.t.taken(lane); err != nil {
				return nil, err
			}
		}
		if taken {
			live = append(live, lane)
		}
	}
	return live, nil
}

// verify notes whether probes could show what the program does.
func (s *Set) verify(r *route, lanes ...int) error {
	err := s.g.verify(r, lanes...)
	s.blind = ""
	if errors.Is(err, errBlind) {
		s.blind = err.Error()
		return nil
	}
	return err
}

// Look has this process look soon whether lanes of others are free.
func (s *Set) Look() {
	select {
	case s.look <- struct{}{}:
	default: // it will
	}
}

// run attaches the program again when other processes have ended: the current process
// answers for their flows.
func (s *Set) run() {
	defer close(s.ended)
	var again <-chan time.Time
	for {
		select {
		case <-s.stop:
			return
		case <-s.look:
		case <-again:
		}
		again = nil
		if s.refresh() {
			again = time.After(lookInterval)
		}
	}
}

// refresh reports whether this process is the current one and others have lanes.
func (s *Set) refresh() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	now, err := s.t.state()
	if err != nil || now.lane != s.lane {
		return false
	}
	// Looking costs a system call a lane. The turn is for attaching alone.
	live, err := s.live()
	if err == nil && !slices.Equal(live, s.attached.live) {
		err = s.t.inTurn(s.attach)
	}
	return err != nil || len(live) > 1 // an error may be over next time
}
