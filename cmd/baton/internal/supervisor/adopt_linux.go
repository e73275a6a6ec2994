package supervisor

import (
	"time"

	"golang.org/x/sys/unix"
)

// An app of package handoff can upgrade itself. Its new main process is in the same
// process group, but becomes our child only when its parent has ended.

// adopt takes over a process that the app has started as its new main process, after
// generation g has announced it (MAINPID=): the app has upgraded itself.
func (s *Supervisor) adopt(g *generation, pid int) {
	if s.byPID[pid] != nil {
		return // it is our own child
	}
	if pgid, err := unix.Getpgid(pid); err != nil || pgid != g.pgid || g != s.serving && g != s.lostMain {
		s.log.Warn("MAINPID ignored: it is no process of the app", "generation", g.number, "pid", g.pid, "main", pid)
		return
	}
	n := &generation{number: s.number(), pid: pid, pgid: g.pgid, began: time.Now(), served: time.Now(), spoke: true}
	var err error
	n.unwatch, err = watch(pid, func() { s.todo.add(func() { s.lost(n) }) })
	if err != nil {
		s.log.Warn("can't watch the app's new main process", "pid", pid, "error", err)
		return
	}
	s.byPID[pid] = n
	s.serving, s.lostMain = n, nil
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

// lost handles the end of an adopted process. If the process's parent ended first, the
// process has become our child, and reap reports its status.
func (s *Supervisor) lost(g *generation) {
	s.reap()
	if s.byPID[g.pid] == g {
		s.ended(g, "ended; its parent has the exit status", false)
	}
}

// leaves reports whether any process of an ended generation's group still runs.
func (s *Supervisor) leaves(g *generation) bool { return unix.Kill(-g.pgid, 0) == nil }

// awaitSuccessor waits for the successor of a main process that died during an upgrade.
// The successor has the sockets and serves; it announces itself as the main process.
func (s *Supervisor) awaitSuccessor(g *generation, how string) {
	s.lostMain = g
	time.AfterFunc(leaveTime, func() {
		s.todo.add(func() {
			if s.lostMain != g {
				return
			}
			s.lostMain = nil
			s.killGroup(g)
			if !s.stopping {
				s.down(how, false)
			}
		})
	})
}

// introduced handles a notification from a process that belongs to no known generation.
func (s *Supervisor) introduced(n news) bool {
	if s.lostMain == nil || n.mainPID == 0 || n.mainPID != n.pid {
		return false
	}
	s.adopt(s.lostMain, n.pid)
	return s.byPID[n.pid] != nil
}
