package supervisor

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// news is one notification.
type news struct {
	pid      int // of the sender, from the kernel
	ready    bool
	stopping bool
	mainPID  int           // 0 if there is none
	extend   time.Duration // 0 if there is none
	status   string
	fds      []int // owned: closing them answers a barrier
}

// parseNews never fails: it ignores what it does not know.
func parseNews(text string, oob []byte) news {
	var n news
	control, _ := unix.ParseSocketControlMessage(oob) // nil if there is none
	for _, m := range control {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			n.pid = int(cred.Pid)
		}
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			n.fds = append(n.fds, fds...)
		}
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch name {
		case "READY":
			n.ready = value == "1"
		case "STOPPING":
			n.stopping = value == "1"
		case "MAINPID":
			n.mainPID, _ = strconv.Atoi(value) // 0 if there is none
		case "EXTEND_TIMEOUT_USEC":
			if usec, err := strconv.ParseInt(value, 10, 64); err == nil && usec > 0 && usec < int64(24*time.Hour/time.Microsecond) {
				n.extend = time.Duration(usec) * time.Microsecond
			}
		case "STATUS":
			n.status = value
		}
	}
	return n
}

// receive handles a notification of a process that belongs to the app.
func (s *Supervisor) receive(n news) {
	defer fdx.Close(n.fds...)
	g := s.sender(n.pid)
	if g == nil {
		if s.introduced(n) {
			return
		}
		return // it has ended since admits
	}
	if n.status != "" {
		s.log.Debug("status", "generation", g.number, "pid", g.pid, "status", n.status)
	}
	if n.stopping {
		g.leaving = true
	}
	if n.extend > 0 {
		s.extend(g, n.extend)
	}
	if n.mainPID > 0 && n.mainPID != g.pid {
		s.adopt(g, n.mainPID)
		return // READY=1 is about the process in MAINPID
	}
	if n.ready {
		g.spoke = true
		// An app of package handoff sends MAINPID= when it is committed.
		if (g == s.coming || g == s.relief) && (s.cfg.Ready.Notify || s.cfg.Ready.Control != nil || s.cfg.Ready.after() > 0) {
			s.ready(g)
		}
	}
}

// sender finds the generation that a process belongs to: as its main process, or as a
// member of its process group.
func (s *Supervisor) sender(pid int) *generation {
	if g := s.byPID[pid]; g != nil || pid <= 0 {
		return g
	}
	pgid, err := unix.Getpgid(pid)
	if err != nil {
		return nil
	}
	var found *generation
	for _, g := range s.byPID {
		if g.pgid == pgid && (found == nil || g.number > found.number) {
			found = g
		}
	}
	return found
}
