package main

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/load"
)

// TestRunSelfUpgrade upgrades an app below baton run at the app's own control socket.
// baton then supervises the new process.
func TestRunSelfUpgrade(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"inherit", "takeover"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := runApp(t, nil, []string{"--ready-notify", "--listen", "web=tcp://127.0.0.1:0"}, goApp(t, mode)...)
			p := press(t, r.address(), load.Once, load.Keep)
			r.await("ready")
			p.more(100)
			c, err := control.New(&control.Config{Socket: filepath.Join(r.dir, "c", "s")})
			if err != nil {
				t.Fatal(err)
			}
			report, err := c.Upgrade(t.Context(), &control.UpgradeConfig{Wait: control.WaitCommit})
			if err != nil {
				t.Fatal(err)
			}
			l := r.await("the app has upgraded itself")
			if l.PID != report.Successor.PID {
				t.Errorf("baton supervises %d, want %d", l.PID, report.Successor.PID)
			}
			p.more(100)
			p.clean()
			gone(t, r.dir, report.Successor.PID, r.cmd.Process.Pid)
			if err := syscall.Kill(l.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r.awaitLine("ended", func(again line) bool { return again.PID == l.PID })
			r.await("ready") // restarted
			r.stop()
			gone(t, r.dir)
		})
	}
}

// TestRunSuccessorBecomesMain kills an app while its successor, which has the sockets,
// is in probation. The successor becomes the app's main process.
func TestRunSuccessorBecomesMain(t *testing.T) {
	t.Parallel()
	r := runApp(t, nil, []string{"--ready-notify", "--listen", "web=tcp://127.0.0.1:0"}, append(goApp(t, "takeover"), "1h")...)
	address := r.address()
	first := r.await("ready").PID
	c, err := control.New(&control.Config{Socket: filepath.Join(r.dir, "c", "s")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Upgrade(t.Context(), &control.UpgradeConfig{Wait: control.WaitNone}); err != nil {
		t.Fatal(err)
	}
	successor := 0
	for end := time.Now().Add(patience); successor == 0; {
		st, err := c.Status(t.Context())
		if err != nil || time.Now().After(end) {
			t.Fatalf("no probation: %v", err)
		}
		if st.Upgrade != nil && st.Upgrade.Kind == handoff.EventPaused {
			successor = st.Upgrade.Report.Successor.PID
		}
	}
	p := press(t, address, load.Once)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if l := r.await("the app has upgraded itself"); l.PID != successor {
		t.Errorf("baton supervises %d, want %d", l.PID, successor)
	}
	p.more(100)
	p.clean()
	r.stop()
	gone(t, r.dir)
}
