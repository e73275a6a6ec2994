package handoff_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestChildren has a service start processes without pause while it is upgraded,
// and before it is ready: none of them inherits anything of the upgrade.
func TestChildren(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode})
		s.set.Sockets = []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0", "unix " + filepath.Join(s.set.Dir, "u")}
		// The test's own environment is its parent's, not Baton's.
		cmd := s.varied(variation{})
		cmd.Env = append(cmd.Env, envRole+"=inheritor")
		before, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		s.startCommand(s.varied(variation{Children: true, Nested: true}))
		s.wait("owner")
		upgrades := testenv.Times(1, 3)
		for range upgrades {
			s.upgrade()
			s.wait("exit")
		}
		s.stop()
		started := map[string]int{}
		for _, m := range s.received() {
			if m.Kind != "inheritor" && m.Kind != "nested" {
				continue
			}
			started[m.Kind]++
			if got := strings.Replace(m.Err, string(before), "", 1); got != "" {
				t.Errorf("%s of process %d: %s", m.Kind, m.PID, got)
			}
		}
		if started["inheritor"] < 2*(upgrades+1) || started["nested"] != 2*(upgrades+1) {
			t.Errorf("processes that were started: %v, want two of each in each generation at least", started)
		}
	})
}

// TestDescriptors compares the descriptors of a successor with what it should
// have: after New, and when its predecessor is gone.
func TestDescriptors(t *testing.T) {
	testenv.Need(t, "pidfd")
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Files: []string{"blob"}, State: true})
		s.set.Sockets = []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0", "a=unix " + filepath.Join(s.set.Dir, "u")}
		s.start()
		real := openFiles(t, s.pid())["2"]
		// Each with the least and the most that there may be.
		type want map[string][2]int
		one := [2]int{1, 1}
		stdio := func(w want) want {
			for _, name := range []string{"0", "1", "2"} {
				w[name] = one
			}
			return w
		}
		joined := stdio(want{
			"tcp": one, "udp": one, "unix u": one, "blob": one, "control": one,
			"conversation": one, "state": one, "predecessor": one,
			"stderr":  one, // where standard error goes to in the end
			"capture": one, // the reading end of the pipe that it goes through until then
		})
		owner := stdio(want{"tcp": one, "udp": one, "unix u": one, "blob": one, "control": one, "capture": one})
		if mode == handoff.Inherit {
			// tableflip's: a copy of each for the next successor; two pipes to its parent;
			// the slot of the conversation, which is empty.
			joined["control"] = [2]int{2, 2}
			joined["pipe"] = [2]int{2, 2}
			joined["slot"], owner["slot"] = one, one
			for _, name := range []string{"tcp", "udp", "unix u", "blob", "control"} {
				owner[name] = [2]int{2, 2}
			}
		}
		check := func(when string, pid int, want want) {
			t.Helper()
			var got map[string]int
			ok := func() bool {
				got = roles(t, pid, real)
				for name, n := range got {
					if n > want[name][1] {
						return false
					}
				}
				for name, n := range want {
					if got[name] < n[0] {
						return false
					}
				}
				return true
			}
			defer func() {
				if t.Failed() {
					t.Logf("%s: %v, want %v", when, got, want)
				}
			}()
			eventually(t, "the descriptors of the successor are what they should be", ok)
		}
		for range 3 {
			s.plan(plan{At: "joined", How: "wait"})
			s.signal(syscall.SIGUSR2)
			pid := s.wait("waits").PID
			check("after New", pid, joined)
			s.let()
			s.wait("exit")
			check("at the end of the upgrade", pid, owner)
			if err := os.Remove(filepath.Join(s.set.Dir, "go")); err != nil {
				t.Fatal(err)
			}
		}
		s.stop()
	})
}

// roles counts the descriptors of a process by what they are for. real is where
// its standard error goes to in the end.
func roles(tb testing.TB, pid int, real string) map[string]int {
	tb.Helper()
	ours := openFiles(tb, os.Getpid())
	n := map[string]int{}
	for fd, target := range openFiles(tb, pid) {
		switch {
		case fd == "0", fd == "1", fd == "2":
			n[fd]++
		case target == real: // of the same pipe we have the reading end, perhaps under that number
			n["stderr"]++
		case ownFile(target), ours[fd] == target: // it may be inherited from our own parent
		case strings.HasPrefix(target, "socket:"):
			n[socketRole(tb, pid, fd)]++
		case target == "anon_inode:[pidfd]":
			n["predecessor"]++
		case strings.HasPrefix(target, "/memfd:"):
			n["state"]++
		case strings.HasSuffix(target, " (deleted)"):
			n["blob"]++
		case strings.HasPrefix(target, "pipe:"):
			if holdsBoth(tb, pid, target) {
				n["capture"]++
			} else {
				n["pipe"]++
			}
		default:
			n[target]++
		}
	}
	// Without its writing end in descriptor 2 the pipe is the only one.
	if n["capture"] == 0 && n["pipe"] == 1 {
		n["capture"], n["pipe"] = 1, 0
		delete(n, "pipe")
	}
	return n
}

// holdsBoth reports whether a process has a pipe as its standard error.
func holdsBoth(tb testing.TB, pid int, target string) bool {
	tb.Helper()
	return openFiles(tb, pid)["2"] == target
}

// socketRole says what a socket of a process is.
func socketRole(tb testing.TB, pid int, name string) string {
	tb.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(pidfd)
	n, err := strconv.Atoi(name)
	if err != nil {
		tb.Fatal(err)
	}
	fd, err := unix.PidfdGetfd(pidfd, n, 0)
	if err != nil {
		return "gone" // closed meanwhile
	}
	defer unix.Close(fd)
	info, err := fdx.Info(fd)
	if errors.Is(err, unix.ENOTSOCK) {
		return "gone" // and another file has its number
	}
	if err != nil {
		tb.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		tb.Fatal(err)
	}
	switch a := sa.(type) {
	case *unix.SockaddrUnix:
		switch {
		case info.Type == unix.SOCK_DGRAM:
			return "slot"
		case !info.Listening:
			return "conversation"
		case filepath.Base(a.Name) == "s":
			return "control"
		}
		return "unix " + filepath.Base(a.Name)
	default:
		if info.Type == unix.SOCK_DGRAM {
			return "udp"
		}
		return "tcp"
	}
}

// TestNonblocking looks at the listeners of a service while it is upgraded,
// without pause: O_NONBLOCK, which all processes share, is never off.
func TestNonblocking(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode})
		s.set.Sockets = []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0", "unix " + filepath.Join(s.set.Dir, "u")}
		s.start()
		for round := range testenv.Times(2, 3) {
			if mode == handoff.Drain && round > 0 { // what it asks the kernel with until then may block
				s.moved(uint64(round+1), 2)
			}
			pid := s.pid()
			var sockets map[string]string
			// What the first process asks the kernel with, in that mode, is soon closed.
			eventually(t, "no socket of the service blocks", func() bool {
				sockets = openFiles(t, pid)
				maps.DeleteFunc(sockets, func(_, target string) bool { return !strings.HasPrefix(target, "socket:") })
				for fd := range sockets {
					if flags, ok := flagsOf(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd)); !ok || flags&unix.O_NONBLOCK == 0 {
						return false
					}
				}
				return true
			})
			if len(sockets) < len(s.set.Sockets)+1 {
				t.Fatalf("sockets of the service: %v", sockets)
			}
			var wg sync.WaitGroup
			stop, looks := make(chan struct{}), 0
			wg.Go(func() { // ends with stop
				for {
					select {
					case <-stop:
						return
					default:
					}
					looks++
					for fd, target := range sockets {
						flags, ok := flagsOf(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd))
						// Closed after commit, its number may mean another file.
						if now, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd)); err != nil || now != target {
							continue
						}
						if ok && flags&unix.O_NONBLOCK == 0 {
							t.Errorf("descriptor %s, %s, has flags %#o, want O_NONBLOCK", fd, target, flags)
							return
						}
					}
				}
			})
			s.upgrade()
			close(stop)
			wg.Wait()
			if looks == 0 {
				t.Error("no descriptor was looked at")
			}
			s.wait("exit")
		}
		s.stop()
	})
}

// flagsOf returns the flags of a descriptor from its file in /proc/PID/fdinfo.
func flagsOf(path string) (int64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false // closed
	}
	_, rest, _ := strings.Cut(string(b), "flags:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, false
	}
	flags, err := strconv.ParseInt(fields[0], 8, 64)
	return flags, err == nil
}

// TestNoLogger wants a line on standard error for what an operator must know.
func TestNoLogger(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, NoLogger: true, Sockets: []string{"tcp 127.0.0.1:0"}, Ready: soon}).start()
	s.wait("addrs")
	want := []string{
		"timed out: not ready within 1s: New was called, and Ready was not; it had asked for 0 of 1 sockets",
		"upgrade committed: the sockets are those of pid ",
	}
	s.plan(plan{At: "joined", How: "hang"})
	s.signal(syscall.SIGUSR2)
	if m := s.wait("upgrade-failed"); !strings.HasSuffix(m.Err, want[0]) {
		t.Errorf("upgrade: %s, want %q at its end", m.Err, want[0])
	}
	s.plan(plan{At: "start", How: "hang"})
	s.signal(syscall.SIGUSR2)
	if m := s.wait("upgrade-failed"); !strings.Contains(m.Err, "not ready within 1s: New was not called") {
		t.Errorf("upgrade: %s", m.Err)
	}
	s.upgrade()
	s.stop() // the log is complete
	log := s.log()
	for _, line := range want {
		if strings.Count(log, line) != 1 {
			t.Errorf("log:\n%s\nwant one line with %q", log, line)
		}
	}
}

// A sink gets lines of a log.
type sink chan string

func (s sink) Write(line []byte) (int, error) {
	s <- string(line)
	return len(line), nil
}

// TestReadyForgotten wants a line in the log of a first process that has not called
// Ready.
func TestReadyForgotten(t *testing.T) {
	t.Parallel()
	log := make(sink, 100)
	newUpgrader(t, handoff.Config{ReadyTimeout: time.Millisecond, Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: log})})
	if line := <-log; !strings.Contains(line, "Ready was not called within 1ms") {
		t.Errorf("log: %s", line)
	}
}
