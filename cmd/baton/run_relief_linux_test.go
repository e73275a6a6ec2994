package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// install puts another file with the app's program at its path.
func install(t *testing.T, dir string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(dir, "app")
	to, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// runs returns the file that a process was executed from.
func runs(t *testing.T, pid int) os.FileInfo {
	t.Helper()
	fi, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	return fi
}

// relieved is an app that is killed while its next version does not become ready.
type relieved struct {
	*running
	address string
	load    *pressed
	first   os.FileInfo // the file of the first version's process
	second  int         // the process of the next version
	waiting []net.Conn  // connections in the queue when the first process died
}

// relieve starts the app's next version with a plan, waits until it logs says, and
// kills the serving process.
func relieve(t *testing.T, kind, plan, says string, flags ...string) *relieved {
	t.Helper()
	address := freeAddress(t)
	flags = append(flags, "--listen", "web=tcp://"+address, "--ready-timeout", "1h", "--restart-reset", "0s")
	if kind == "mute" {
		flags = append(flags, "--ready-tcp", address)
	}
	r := &relieved{running: runApp(t, func(cmd *exec.Cmd) { install(t, cmd.Dir) }, flags, "./app", kind)}
	r.address = r.running.address()
	first := r.await("ready").PID
	r.first = runs(t, first)
	r.load = press(t, r.address, load.Once)
	r.load.more(100)
	install(t, r.dir)
	r.write("plan", plan)
	r.signal(syscall.SIGUSR2)
	// The app may log before baton does.
	r.second = r.awaitAll("started", says)["started"].PID
	// The process has accepted no connection then.
	signalApp(t, first, syscall.SIGHUP)
	r.await("accepts nothing")
	r.waiting = dialAll(t, r.address, 3)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	return r
}

// wantFirst waits until the first version is ready again and serves the queued
// connections.
func (r *relieved) wantFirst() int {
	r.t.Helper()
	pid := r.await("ready").PID
	if !os.SameFile(runs(r.t, pid), r.first) {
		r.t.Error("another version is ready, want the one that was")
	}
	r.wantWaiting(pid)
	return pid
}

// wantWaiting expects that process pid serves the queued connections.
func (r *relieved) wantWaiting(pid int) {
	r.t.Helper()
	for _, c := range r.waiting {
		if got, err := served(c); err != nil || got != pid {
			r.t.Errorf("served by process %d: %v, want %d", got, err, pid)
		}
	}
}

// wantSecond waits until the second version has replaced process pid.
func (r *relieved) wantSecond(pid int) {
	r.t.Helper()
	l := r.await("upgraded")
	if os.SameFile(runs(r.t, l.PID), r.first) {
		r.t.Error("the first version is ready, want the second")
	}
	if pid != 0 {
		r.awaitLine("ended", func(l line) bool { return l.PID == pid })
	} else {
		r.wantWaiting(l.PID)
	}
	r.load.more(100)
}

// end expects that only connections of the dead process have failed.
func (r *relieved) end() {
	r.t.Helper()
	s := r.load.end()
	if s.Failed > 4 || s.Failures[load.Refused] > 0 || s.Failures[load.Timeout] > 0 {
		r.t.Errorf("%d of %d failed, %v: %+v", s.Failed, s.Connections, s.Failures, s.Samples)
	}
	r.stop()
	gone(r.t, r.dir)
}

const (
	asItWas  = "upgrade failed: starting the previous program"
	servesOn = "upgrade failed: the running app serves on"
)

// TestRunRelief kills an app while its next version starts, which may take an hour, or
// has failed. The program that was ready last is restarted at once, although the path
// has the next version.
func TestRunRelief(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind, plan, says string
		flags            []string
		failed           string // the log message after the death
	}{
		"plain":              {"plain", "hang", "hangs", []string{"--ready-notify"}, asItWas},
		"before it joins":    {"takeover", "hang", "hangs", []string{"--socket", "c/s"}, asItWas},
		"when it has joined": {"takeover", "hang late", "hangs", []string{"--socket", "c/s"}, asItWas},
		"unasked":            {"takeover", "hang late", "hangs", []string{"--ready-notify"}, asItWas},
		"failed before":      {"plain", "exit", servesOn, []string{"--ready-notify"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "before it joins" || name == "unasked" {
				testenv.Long(t, "TestRunRelief")
			}
			t.Parallel()
			r := relieve(t, c.kind, c.plan, c.says, c.flags...)
			if c.failed != "" {
				r.await(c.failed)
			}
			pid := r.wantFirst()
			r.signal(syscall.SIGUSR2) // this version does not hang
			r.wantSecond(pid)
			r.end()
		})
	}
}

// TestRunReliefBeside is the same for apps whose readiness only a probe of the socket
// shows. They may accept before they count as ready, so the next version is not killed.
func TestRunReliefBeside(t *testing.T) {
	t.Parallel()
	t.Run("until it is ready", func(t *testing.T) {
		t.Parallel()
		r := relieve(t, "mute", "wait", "waits")
		pid := r.wantFirst()
		r.write("go", "")
		r.wantSecond(pid)
		r.end()
	})
	t.Run("until it has failed", func(t *testing.T) {
		t.Parallel()
		r := relieve(t, "mute", "wait", "waits")
		pid := r.wantFirst()
		if err := syscall.Kill(r.second, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if l := r.await(servesOn); l.PID != pid {
			t.Errorf("process %d serves on, want %d", l.PID, pid)
		}
		r.end()
	})
	t.Run("it fails before", func(t *testing.T) {
		t.Parallel()
		r := relieve(t, "mute", "wait", "waits", "--restart-delay", "1s")
		r.await("the app is down: restarting it")
		if err := syscall.Kill(r.second, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.awaitLine("ended", func(l line) bool { return l.PID == r.second })
		r.wantFirst()
		r.end()
	})
	t.Run("it is ready before", func(t *testing.T) {
		t.Parallel()
		r := relieve(t, "mute", "wait", "waits", "--restart-delay", "1h", "--restart-max-delay", "1h")
		r.await("the app is down: restarting it")
		r.write("go", "")
		r.wantSecond(0)
		r.end()
	})
}
