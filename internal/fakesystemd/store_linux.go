package fakesystemd

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// store is the descriptor store of a service, as service.c of systemd has it, with
// NotifyAccess=main. Systemd.mu guards it.
type store struct {
	size    int
	main    int // 0: there is no store
	names   []string
	fds     []int
	changes int
	ignored int
}

// StartMain gives the service a store for so many descriptors, and a main process,
// which start starts: Systemd reads no message meanwhile.
func (s *Systemd) StartMain(size int, start func() (pid int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.size, s.store.main = size, start()
}

// Main returns the main process.
func (s *Systemd) Main() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.main
}

// receive takes a message in and returns the descriptors that are not stored.
func (st *store) receive(tb testing.TB, m Message, fds []int) []int {
	if st.main == 0 {
		return fds
	}
	if m.PID != st.main {
		st.ignored++
		return fds
	}
	if main := m.value("MAINPID"); main != "" {
		st.main, _ = strconv.Atoi(main)
	}
	switch name := m.value("FDNAME"); {
	case m.value("FDSTOREREMOVE") == "1":
		for i := len(st.names) - 1; i >= 0; i-- {
			if st.names[i] == name {
				fds = append(fds, st.fds[i])
				st.names, st.fds = slices.Delete(st.names, i, i+1), slices.Delete(st.fds, i, i+1)
				st.changes++
			}
		}
	case m.value("FDSTORE") == "1":
		if len(name) > 255 || strings.Contains(name, ":") {
			tb.Errorf("systemd would not take the name %q", name)
		}
		return slices.DeleteFunc(fds, func(fd int) bool {
			if len(st.fds) >= st.size || slices.ContainsFunc(st.fds, func(o int) bool { return same(o, fd) }) {
				return false
			}
			st.names, st.fds = append(st.names, name), append(st.fds, fd)
			st.changes++
			return true
		})
	}
	return fds
}

// same compares open file descriptions, as systemd does (kcmp(2)).
func same(a, b int) bool {
	pid := uintptr(os.Getpid())
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, 0, uintptr(a), uintptr(b), 0)
	return errno == 0 && r == 0
}

// Put puts descriptors into the store, which it takes, by their names.
func (s *Systemd) Put(names []string, fds []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.names, s.store.fds = append(s.store.names, names...), append(s.store.fds, fds...)
}

// EmptyStore closes what is in the store, as systemd does when a service has stopped
// for good.
func (s *Systemd) EmptyStore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = fdx.Close(s.store.fds...)
	s.store.names, s.store.fds = nil, nil
}

// Pass has a process start with what is in the store, as [Pass] does. Like systemd
// it passes the last one first.
func (s *Systemd) Pass(cmd *exec.Cmd) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	names, fds := slices.Clone(s.store.names), slices.Clone(s.store.fds)
	slices.Reverse(names)
	slices.Reverse(fds)
	Pass(s.tb, cmd, names, fds)
}

// Pass has a process start with copies of descriptors, by their names, as systemd
// starts it (sd_listen_fds(3)). The caller closes cmd.ExtraFiles then.
func Pass(tb testing.TB, cmd *exec.Cmd, names []string, fds []int) {
	tb.Helper()
	if len(fds) == 0 {
		return
	}
	cmd.Args = []string{"sh", "-c", `LISTEN_PID=$$ exec "$0"`, cmd.Path}
	cmd.Path = "/bin/sh"
	cmd.Env = append(cmd.Env, fmt.Sprint("LISTEN_FDS=", len(fds)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	for i, fd := range fds {
		dup, err := fdx.DupFD(fd)
		if err != nil {
			tb.Fatal(err)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(dup), names[i]))
	}
}

// Stored returns the names in the store, sorted, and how often it has changed.
func (s *Systemd) Stored() (names []string, changes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names = slices.Clone(s.store.names)
	slices.Sort(names)
	return names, s.store.changes
}

// Ignored counts the messages of other processes than the main one.
func (s *Systemd) Ignored() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.ignored
}

// AwaitStored waits until the names in the store are as they should be, and returns
// them.
func (s *Systemd) AwaitStored(what string, ok func(names []string) bool) []string {
	s.tb.Helper()
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		news := s.news
		s.mu.Unlock()
		names, _ := s.Stored()
		if ok(names) {
			return names
		}
		select {
		case <-news:
		case <-timeout:
			s.tb.Fatalf("%s: in the store: %q", what, names)
		}
	}
}
