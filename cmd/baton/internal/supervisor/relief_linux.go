package supervisor

import "time"

// relieve handles the end of the generation that served while its successor is not
// ready yet, and may never be: a relief has to serve until then.
func (s *Supervisor) relieve(g *generation, how string, clean bool) {
	// One of package handoff that has died leaves its sockets to its successor, if
	// that has them already; a relief would have to wait beside it.
	heir := g.spoke || s.cfg.Ready.Control != nil
	switch {
	case g.leaving, s.cfg.Restart == RestartNever, clean && (heir || s.cfg.Restart != RestartAlways):
		// It was done, and its successor has not said so yet.
		s.log.Info("the app has ended in an upgrade: its successor is awaited", "generation", s.coming.number, "pid", s.coming.pid)
	case heir:
		s.log.Warn("the app has died in an upgrade: its successor has a moment to be ready", "generation", s.coming.number, "pid", s.coming.pid)
		coming := s.coming
		time.AfterFunc(leaveTime, func() {
			s.todo.add(func() {
				if s.coming == coming && s.serving == nil && !s.stopping {
					s.forsake(coming, how)
				}
			})
		})
	default:
		s.restart(how)
	}
}

// forsake ends a generation that is not ready, for the app is down. It has nothing
// to lose.
func (s *Supervisor) forsake(g *generation, how string) {
	how = "the app has died before its successor was ready: " + how
	s.log.Error("upgrade failed: the app is started as it was", "generation", g.number, "pid", g.pid, "error", how)
	s.coming, g.givenUp = nil, how
	s.killNow(g)
}

// relieving reports whether a relief is starting, to serve until an upgrade is over.
func (s *Supervisor) relieving() bool { return s.relief != nil || s.again != nil }

// instead has the relief be the one that is to come, if it is started: the upgrade
// has failed.
func (s *Supervisor) instead(why string) {
	s.log.Error("upgrade failed: the app is started as it was", "error", why)
	s.coming, s.relief = s.relief, nil
}

// relieved handles a generation that is ready. It reports whether that is the relief,
// and its successor is not ready; otherwise no relief is needed any more.
func (s *Supervisor) relieved(g *generation) bool {
	if g == s.relief {
		s.relief, s.coming.after = nil, g.pid
		return true
	}
	if s.again != nil {
		s.again.Stop()
		s.again = nil
	}
	if r := s.relief; r != nil {
		s.relief = nil
		s.terminate(r, "its successor is ready")
	}
	return false
}
