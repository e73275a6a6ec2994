package main

import (
	"context"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/internal/testservice"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){"program": func([]string) { main() }})
}

const patience = 60 * time.Second

// A service is a line of processes under test.
type service struct {
	tb      testing.TB
	address string
	line    *testservice.Line[step]
}

// start starts the service of that name.
func start(tb testing.TB, name string, mode handoff.Mode) *service {
	tb.Helper()
	dir := testenv.ShortDir(tb)
	socket := dir + "/ctl/s"
	cmd := testmain.Command(tb, "program", "-control", socket, "-address", "127.0.0.1:0", "-mode", string(mode), "-probation", "20ms", name)
	cmd.Env = append(cmd.Env, "BATON_FRAMEWORKS="+strconv.Quote(dir))
	s := &service{tb: tb, line: testservice.New[step](strconv.Quote(dir))}
	tb.Cleanup(func() {
		s.line.Kill()
		if tb.Failed() {
			tb.Logf("standard error of the service:\n%s", s.line.Log())
		}
	})
	if err := s.line.Start(cmd, nil); err != nil {
		tb.Fatal(err)
	}
	s.wait("owner")
	client, err := control.New(&control.Config{Socket: socket})
	if err != nil {
		tb.Fatal(err)
	}
	status, err := client.Status(tb.Context())
	if err != nil || len(status.Sockets) != 1 {
		tb.Fatalf("status %+v, %v, want one socket", status, err)
	}
	s.address = status.Sockets[0].Address
	return s
}

func (s *service) wait(kinds ...string) step {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := s.line.Take(ctx, func(l step) bool { return slices.Contains(kinds, l.Kind) })
	if err != nil {
		s.tb.Fatalf("no %v: %v", kinds, err)
	}
	return got
}

// owner returns the process that serves.
func (s *service) owner() (pid int) {
	for _, l := range s.line.Messages() {
		if l.Kind == "owner" {
			pid = l.PID
		}
	}
	return pid
}

// signal sends a signal to the process that serves.
func (s *service) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := syscall.Kill(s.owner(), sig); err != nil {
		s.tb.Fatal(os.NewSyscallError("kill", err))
	}
}

// upgrade replaces the process, waits for its end, and returns its last report.
func (s *service) upgrade() handoff.Report {
	s.tb.Helper()
	s.signal(syscall.SIGUSR2)
	if l := s.wait("committed", "upgrade-failed"); l.Kind != "committed" {
		s.tb.Fatalf("upgrade: %s", l.Err)
	}
	s.wait("owner")
	var report handoff.Report
	if l := s.wait("stopped"); l.Report != nil {
		report = *l.Report
	}
	s.wait("exit")
	return report
}
