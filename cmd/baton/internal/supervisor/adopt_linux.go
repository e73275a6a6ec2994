package supervisor

import (
	"time"

	"golang.org/x/sys/unix"
)

// An app of package handoff can upgrade itself. Its new main process is no child of
// ours before the old one has ended, and is in the same process group.

// adopt takes a process that the app has started for its main process, as g, its
// main process so far, says (MAINPID=): it has upgraded itself.
func (s *Supervisor) adopt(g *generation, pid int) {
	if s.byPID[pid] != nil {
		return // it is ours: the conversation is over
	}
	if pgid, err := unix.Getpgid(pid); err != nil || pgid != g.pgid || g != s.serving && g != s.heirOf {
		s.log.Warn("a main process that is none of the app's", "generation", g.number, "pid", g.pid, "main", pid)
		return
	}
	n := &generation{number: s.number(), pid: pid, pgid: g.pgid, began: time.Now(), served: time.Now(), spoke: true}
	var err error
	n.unwatch, err = watch(pid, func() { s.todo.add(func() { s.lost(n) }) })
	if err != nil {
		s.log.Warn("the app's new main process can't be watched", "pid", pid, "error", err)
		return
	}
	s.byPID[pid] = n
	s.serving, s.heirOf = n, nil
	g.leaving = true
	s.log.Info("the app has upgraded itself", "generation", n.number, "pid", pid, "predecessor", g.pid)
	switch {
	case s.stopping:
		s.terminate(n, "stop")
	case s.asked && s.coming == nil && !s.asking:
		s.asked = false
		s.upgrade()
	}
}

// lost handles the end of a process that was adopted. If its parent has ended
// before, it is our child by now, and reap knows more.
func (s *Supervisor) lost(g *generation) {
	s.reap()
	if s.byPID[g.pid] == g {
		s.ended(g, "ended, its parent knows how", false)
	}
}

// leaves reports whether a generation that has ended has left processes.
func (s *Supervisor) leaves(g *generation) bool { return unix.Kill(-g.pgid, 0) == nil }

// awaitHeir gives the successor of a main process that has died in an upgrade the
// time to say that it is the main process now: it has its sockets, and serves.
func (s *Supervisor) awaitHeir(g *generation, how string) {
	s.heirOf = g
	time.AfterFunc(leaveTime, func() {
		s.todo.add(func() {
			if s.heirOf != g {
				return
			}
			s.heirOf = nil
			s.killGroup(g)
			if !s.stopping {
				s.down(how, false)
			}
		})
	})
}

// introduced handles a notification by an unknown process.
func (s *Supervisor) introduced(n news) bool {
	if s.heirOf == nil || n.mainPID == 0 || n.mainPID != n.pid {
		return false
	}
	s.adopt(s.heirOf, n.pid)
	return s.byPID[n.pid] != nil
}
