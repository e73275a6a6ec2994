package lifecycle

import "github.com/seed-11c92bf9/baton/handoff/internal/failure"

// Next returns the state after e and what to do about it. An event that is out of
// place leaves the state as it is: the error says why where the caller has to know
// (a failure.Reason), and is nil where the event comes too late to matter.
func (s State) Next(e Event) (State, []Action, error) {
	switch e {
	case Join:
		s.Joined = true
		return s, nil, nil
	case Ready, Start, Own, Leave, Quit:
		return s.begin(e)
	case Begin:
		if reason := s.refusal(); reason != nil {
			return s, nil, reason
		}
		s.Upgrading = true
		return s, nil, nil
	case Pause, Resume, Commit, Fail:
		return s.upgrade(e)
	case Announce:
		return s.announce()
	case Stop:
		return s.stop()
	case Expire:
		if !s.Done() || s.Expired {
			return s, nil, nil
		}
		s.Expired = true
		return s, []Action{CutOff}, nil
	case Shutdown:
		if s.Shutdown {
			return s, nil, failure.Closed
		}
		s.Shutdown = true
		return s, nil, nil
	case Close:
		s.Phase, s.Gate = Closed, Shut
		return s, nil, nil
	}
	return s, nil, nil
}

// begin is Next for what leads a process to its sockets.
func (s State) begin(e Event) (State, []Action, error) {
	if s.Done() {
		return s, nil, failure.Closed
	}
	switch {
	case e == Ready && s.Phase == Starting && !s.Joined:
		s.Phase, s.Gate, s.Owner = Serving, Open, true
		return s, []Action{OpenGate}, nil
	case e == Start && s.Phase == Starting && s.Joined && s.Gate != Shut:
		s.Phase, s.Gate = Probation, Open
		return s, []Action{OpenGate}, nil
	case e == Own && s.Phase == Probation && s.Gate != Shut:
		s.Phase, s.Joined, s.Owner = Serving, false, true
	case e == Leave && s.Joined:
		s.Gate = Shut
		return s, []Action{ShutGate}, nil
	case e == Quit && s.Joined:
		return s.end(Stopping)
	}
	return s, nil, nil
}

// refusal says why no upgrade can begin, or nil.
func (s State) refusal() error {
	switch {
	case s.Phase == Starting:
		return failure.NotReady
	case s.Phase == Probation:
		return failure.InProbation
	case s.Phase != Serving || s.Shutdown || s.Announced:
		return failure.Closed
	case s.Upgrading:
		return failure.InProgress
	}
	return nil
}

// upgrade is Next for an upgrade that is under way.
func (s State) upgrade(e Event) (State, []Action, error) {
	if !s.Upgrading {
		return s, nil, nil
	}
	switch e {
	case Pause:
		if s.Gate == Open {
			s.Gate = Paused
			return s, []Action{PauseGate}, nil
		}
	case Resume:
		if s.Gate == Paused {
			s.Gate = Open
			return s, []Action{OpenGate}, nil
		}
	case Commit:
		s.Upgrading, s.Owner = false, false
		if s.Done() { // a stop came in between
			s.Phase = Lingering
			return s, nil, nil
		}
		return s.end(Lingering)
	case Fail:
		s.Upgrading = false
	}
	return s, nil, nil
}

// announce lets the program prepare a stop, once.
func (s State) announce() (State, []Action, error) {
	if s.Phase != Serving || s.Announced {
		return s, nil, nil
	}
	s.Announced = true
	if s.Upgrading {
		return s, []Action{GiveUp, Prepare}, nil
	}
	return s, []Action{Prepare}, nil
}

// stop ends the service without a successor.
func (s State) stop() (State, []Action, error) {
	if s.Done() {
		return s, nil, nil
	}
	if s.Joined {
		return s, []Action{Abort}, nil
	}
	upgrading := s.Upgrading
	s, acts, err := s.end(Stopping)
	if upgrading {
		acts = append([]Action{GiveUp}, acts...)
	}
	return s, acts, err
}

// end turns to a phase in which the process only serves what is open.
func (s State) end(p Phase) (State, []Action, error) {
	s.Phase, s.Gate = p, Shut
	return s, []Action{ShutGate, CloseDone, StartLinger}, nil
}
