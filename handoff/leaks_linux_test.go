package handoff_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestLeakedDescriptors has a service open files all the time without close-on-exec, as
// package time opens its zones (time/sys_unix.go, Go 1.26): none reaches a successor in
// modes Takeover and Drain, and in mode Inherit, where tableflip forks, none reaches two.
// A descriptor that the first process was started with, as by flock(1), reaches all, where
// tableflip puts none of its own in its place.
func TestLeakedDescriptors(t *testing.T) {
	if err := unix.CloseRange(1<<30, 1<<30, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		t.Skip("close_range(2) with CLOSE_RANGE_CLOEXEC, Linux 5.11:", err)
	}
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		file := filepath.Join(testenv.ShortDir(t), "leak")
		lock, err := os.Create(file + ".lock")
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: 1})
		cmd := s.varied(variation{Leaks: file})
		number := 3
		if mode == handoff.Inherit {
			number = 30
		}
		cmd.ExtraFiles = make([]*os.File, number-2)
		cmd.ExtraFiles[number-3] = lock
		s.startCommand(cmd)
		s.wait("owner")
		upgrades, _ := strconv.Atoi(os.Getenv("BATON_TEST_UPGRADES"))
		for range max(upgrades, testenv.Times(3, 20)) {
			s.upgrade()
			s.wait("exit")
		}
		leaked := 0
		for _, m := range s.received() {
			switch {
			case m.Kind == "leaked":
				leaked += m.Leaked
			case m.Kind == "inheritable" && m.Leaked > 0:
				t.Errorf("process %d would pass on %d descriptors that it has not opened", m.PID, m.Leaked)
			}
		}
		t.Logf("%d descriptors leaked", leaked)
		if leaked > 0 && mode != handoff.Inherit {
			t.Errorf("%d descriptors leaked into successors", leaked)
		}
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", s.pid(), number)); err != nil || got != lock.Name() {
			t.Errorf("descriptor %d is %q, %v, want the lock %s, which the first process was started with", number, got, err, lock.Name())
		}
		s.stop()
	})
}

// opened returns how many descriptors of this process lead to a file; where inheritable,
// those without close-on-exec.
func opened(path string, inheritable bool) (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		fail("descriptors", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if target, lerr := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || lerr != nil || target != path {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && (!inheritable || flags&unix.FD_CLOEXEC == 0) {
			n++
		}
	}
	return n
}

// leak has package time open a file of its zones, and close it, again and again, until the
// service ends.
func leak(up *handoff.Upgrader, path string) {
	if err := os.Setenv("ZONEINFO", filepath.Dir(path)); err != nil {
		fail("environment", err)
	}
	// One that stays open, which a fork passes on at any moment.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	}
	if err != nil {
		fail("descriptors", err)
	}
	for {
		select {
		case <-up.Done():
			return
		default:
			_, _ = time.LoadLocation(filepath.Base(path)) // the file has no zone
		}
	}
}
