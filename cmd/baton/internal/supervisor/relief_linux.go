package supervisor

import "time"

// relieve handles the end of the serving generation while its successor is not ready
// yet, and may never be. Another process has to serve until then.
func (s *Supervisor) relieve(g *generation, how string, clean bool) {
	// When an app of package handoff dies, its successor keeps the sockets if it has
	// them already. A process started beside it would have to wait for that one.
	joins := g.spoke || s.cfg.Ready.Control != nil
	switch {
	case g.leaving, s.cfg.Restart == RestartNever, clean && (joins || s.cfg.Restart != RestartAlways):
		// It ended as planned, and its successor has not announced itself yet.
		s.log.Info("the app has ended during an upgrade: waiting for its successor", "generation", s.coming.number, "pid", s.coming.pid)
	case joins:
		s.log.Warn("the app died during an upgrade: waiting a moment for its successor to be ready", "generation", s.coming.number, "pid", s.coming.pid)
		coming := s.coming
		time.AfterFunc(leaveTime, func() {
			s.todo.add(func() {
				if s.coming == coming && s.serving == nil && !s.stopping {
					s.giveUp(coming, how)
				}
			})
		})
	default:
		s.restart(how)
	}
}

// giveUp ends a generation that is not ready, because the app is down. It serves no
// connections that could be lost.
func (s *Supervisor) giveUp(g *generation, how string) {
	how = "the app has died before its successor was ready: " + how
	s.log.Error("upgrade failed: starting the previous program", "generation", g.number, "pid", g.pid, "error", how)
	s.coming, g.givenUp = nil, how
	s.killNow(g)
}

// relieving reports whether a process is being started to serve until the upgrade is
// over.
func (s *Supervisor) relieving() bool { return s.relief != nil || s.again != nil }

// instead continues with the relief as the next generation, if it is started: the
// upgrade has failed.
func (s *Supervisor) instead(why string) {
	s.log.Error("upgrade failed: starting the previous program", "error", why)
	s.coming, s.relief = s.relief, nil
}

// relieved handles a generation that is ready. It reports whether that generation is
// the relief and its successor is still to come. Otherwise the relief is no longer
// needed.
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
