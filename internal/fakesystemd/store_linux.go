package fakesystemd

import (
	"fmt"
	"os"
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

// Pass returns what a process gets when systemd starts it: copies of what is in the
// store, which the caller closes, and the variables that list them, but for
// LISTEN_PID. Like systemd it has the last one first.
func (s *Systemd) Pass() (files []*os.File, env []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := slices.Clone(s.store.names)
	slices.Reverse(names)
	for i, name := range names {
		fd, err := fdx.DupFD(s.store.fds[len(names)-1-i])
		if err != nil {
			s.tb.Fatal(err)
		}
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	return files, []string{fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES=" + strings.Join(names, ":")}
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
