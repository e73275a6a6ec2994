package control_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/internal/procs"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// eachMode runs a test in each mode.
func eachMode(t *testing.T, test func(t *testing.T, mode handoff.Mode)) {
	t.Helper()
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			test(t, mode)
		})
	}
}

// the steps of an upgrade that its predecessor sees.
var steps = []handoff.EventKind{
	handoff.EventUpgradeStarted, handoff.EventTransfer, handoff.EventWarming,
	handoff.EventPaused, handoff.EventCommitting, handoff.EventCommitted,
}

func TestUpgrade(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := start(t, settings{Mode: mode})
		before := s.status()
		if before.Generation != 1 || before.State != handoff.StateServing || before.Mode != mode || len(before.Upgrades) != 0 {
			t.Errorf("status before: %+v", before)
		}
		for gen := uint64(2); gen <= 4; gen++ {
			var seen []handoff.EventKind
			r, err := s.Upgrade(within(t), &control.UpgradeConfig{Wait: control.WaitLinger, OnEvent: func(e handoff.Event) {
				// Those of the upgrade before come at any time, and the wait for its end.
				if e.Kind != handoff.EventPredecessorDone && e.Kind != handoff.EventMoved && e.Kind != handoff.EventWaiting {
					seen = append(seen, e.Kind)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			if r.Outcome != handoff.OutcomeCommitted || r.Generation != gen || r.Predecessor.PID != before.PID {
				t.Errorf("report: %+v", r)
			}
			if len(seen) < len(steps) || !slices.Equal(seen[:len(steps)], steps) {
				t.Errorf("events: %v, want %v first", seen, steps)
			}
			after := s.status()
			if after.Generation != gen || after.PID != r.Successor.PID || after.PID == before.PID {
				t.Errorf("status after: %+v", after)
			}
			before = after
		}
		// The successor gets the history of the line, with the linger that ended later.
		history := before.Upgrades
		if len(history) != 3 {
			t.Fatalf("history: %+v, want 3 upgrades", history)
		}
		for i, r := range history {
			if r.Generation != uint64(i+2) || r.Outcome != handoff.OutcomeCommitted || r.Durations.Total <= 0 {
				t.Errorf("history[%d]: %+v", i, r)
			}
		}
		if history[0].Durations.Linger <= 0 {
			t.Errorf("history[0] has no linger: %+v", history[0])
		}
	})
}

// TestUpgradeLinger has a connection open, which the call waits for.
func TestUpgradeLinger(t *testing.T) {
	t.Parallel()
	s := start(t, settings{Mode: handoff.Takeover, Linger: patience})
	c := s.dial()
	saw := false
	r, err := s.Upgrade(within(t), &control.UpgradeConfig{Wait: control.WaitLinger, OnLinger: func(l control.Linger) {
		if l.Open != 1 || saw {
			return
		}
		saw = true
		if l.Remaining <= 0 || l.Remaining > patience {
			t.Errorf("linger: %+v, want up to %v remaining", l, patience)
		}
		st := s.status() // the successor's
		if len(st.Lingering) != 1 || st.Generation != 2 {
			t.Errorf("status while the predecessor lingers: %+v", st)
		}
		if err := errors.Join(echo(c), c.Close()); err != nil {
			t.Error(err)
		}
	}})
	if err != nil || !saw {
		t.Fatalf("Upgrade() = %v; told of an open connection: %t", err, saw)
	}
	if r.Open != 1 || r.Cut != 0 || r.Durations.Linger <= 0 {
		t.Errorf("report: %+v, want one open at commit, none cut", r)
	}
}

// TestUpgradeWithoutShutdown has the predecessor's main return at Done: the upgrade is
// committed, and the report says what is missing.
func TestUpgradeWithoutShutdown(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := start(t, settings{Mode: mode, Careless: true})
		r, err := s.Upgrade(within(t), nil)
		if err != nil || r.Outcome != handoff.OutcomeCommitted || r.Generation != 2 || !strings.Contains(strings.Join(r.Warnings, "\n"), "without Shutdown") || r.Durations.Total < r.Durations.Warming {
			t.Errorf("Upgrade() = %+v, %v, want a committed one with a warning, and its time", r, err)
		}
	})
}

func TestUpgradeFails(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := start(t, settings{Mode: mode})
		s.plan("exit")
		_, err := s.Upgrade(within(t), nil)
		if !errors.Is(err, handoff.ErrSuccessorDied) {
			t.Errorf("Upgrade() = %v, want ErrSuccessorDied", err)
		}
		var ue *handoff.UpgradeError
		// In mode Inherit the words of a successor that has not joined go to
		// the log.
		if mode != handoff.Inherit && (!errors.As(err, &ue) || len(ue.Stderr) == 0 || !strings.Contains(ue.Stderr[0], "disk is full")) {
			t.Errorf("Upgrade() = %v, want the successor's last words", err)
		}
		st := s.status()
		if st.Generation != 1 || len(st.Upgrades) != 1 || st.Upgrades[0].Outcome != handoff.OutcomeFailed {
			t.Errorf("status: %+v", st)
		}
		s.dial() // it serves on
	})
}

func TestRollback(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := start(t, settings{Mode: mode, Probation: patience})
		if _, err := s.Rollback(within(t), ""); !errors.Is(err, handoff.ErrNoUpgrade) {
			t.Errorf("Rollback() without an upgrade = %v, want ErrNoUpgrade", err)
		}
		_, err := s.Upgrade(within(t), &control.UpgradeConfig{OnEvent: func(e handoff.Event) {
			if e.Kind != handoff.EventPaused {
				return
			}
			if st := s.status(); st.Upgrade == nil || st.Upgrade.Kind != handoff.EventPaused {
				t.Errorf("status in probation: %+v", st)
			}
			r, err := s.Rollback(within(t), "it looks bad")
			if err != nil || r.Outcome != handoff.OutcomeRolledBack || !strings.Contains(r.Reason, "it looks bad") {
				t.Errorf("Rollback() = %+v, %v", r, err)
			}
		}})
		if !errors.Is(err, handoff.ErrRolledBack) || !strings.Contains(err.Error(), "it looks bad") {
			t.Errorf("Upgrade() = %v, want ErrRolledBack with the reason", err)
		}
		if st := s.status(); st.Generation != 1 || st.Upgrade != nil {
			t.Errorf("status: %+v", st)
		}
		s.dial()
	})
}

// TestUpgradeCancel ends the caller's context in probation.
func TestUpgradeCancel(t *testing.T) {
	t.Parallel()
	s := start(t, settings{Mode: handoff.Takeover, Probation: patience})
	ctx, cancel := context.WithCancel(within(t))
	_, err := s.Upgrade(ctx, &control.UpgradeConfig{OnEvent: func(e handoff.Event) {
		if e.Kind == handoff.EventPaused {
			cancel()
		}
	}})
	if !errors.Is(err, handoff.ErrRolledBack) {
		t.Errorf("Upgrade() = %v, want ErrRolledBack", err)
	}
	if st := s.status(); st.Generation != 1 || st.Upgrade != nil {
		t.Errorf("status: %+v", st)
	}
}

func TestUpgradeTimeout(t *testing.T) {
	t.Parallel()
	s := start(t, settings{Mode: handoff.Takeover})
	s.plan("hang")
	_, err := s.Upgrade(within(t), &control.UpgradeConfig{Timeout: 50 * time.Millisecond})
	if !errors.Is(err, handoff.ErrTimeout) {
		t.Errorf("Upgrade() = %v, want ErrTimeout", err)
	}
	s.dial()
}

// TestUpgradeOutlivesItsCaller kills the tool that has asked for an upgrade.
func TestUpgradeOutlivesItsCaller(t *testing.T) {
	t.Parallel()
	s := start(t, settings{Mode: handoff.Takeover, Probation: 500 * time.Millisecond})
	cmd := testmain.Command(t, "ask", s.Socket(), "upgrade")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("upgrade-started"))); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
	committed := errors.New("committed")
	err = s.Follow(within(t), func(e handoff.Event) error {
		if e.Kind == handoff.EventCommitted {
			return committed
		}
		return nil
	})
	if !errors.Is(err, committed) {
		t.Errorf("Follow() = %v, want a commit", err)
	}
}

func TestUpgradeNoWait(t *testing.T) {
	t.Parallel()
	s := start(t, settings{Mode: handoff.Takeover, Probation: patience})
	r, err := s.Upgrade(within(t), &control.UpgradeConfig{Wait: control.WaitNone})
	if err != nil || r != nil {
		t.Errorf("Upgrade() = %v, %v, want neither", r, err)
	}
	if _, err := s.Upgrade(within(t), nil); !errors.Is(err, handoff.ErrInProgress) {
		t.Errorf("second Upgrade() = %v, want ErrInProgress", err)
	}
	if _, err := s.Rollback(within(t), ""); err != nil {
		t.Error(err)
	}
}

// TestUpgradeExecutable upgrades to another binary and with another variable, and from
// there again.
func TestUpgradeExecutable(t *testing.T) {
	t.Parallel()
	s := start(t, settings{Mode: handoff.Takeover})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(s.set.Dir, "next")
	if err := os.Symlink(exe, next); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Upgrade(within(t), &control.UpgradeConfig{Executable: next, Env: []string{"HOME=/nowhere"}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.status().PID)); err != nil || !strings.Contains(string(env), "HOME=/nowhere\x00") {
			t.Errorf("environment: %q, %v, want HOME=/nowhere", env, err)
		}
		if st := s.status(); st.Version != "next" || st.Executable != next {
			t.Errorf("version %q, executable %s, want %s", st.Version, st.Executable, next)
		}
		if _, err := s.Upgrade(within(t), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Upgrade(within(t), &control.UpgradeConfig{Executable: filepath.Join(s.set.Dir, "missing")}); err == nil || !strings.Contains(err.Error(), "missing is gone") {
		t.Errorf("Upgrade() to a missing binary = %v", err)
	}
	if _, err := s.Upgrade(within(t), &control.UpgradeConfig{Env: []string{"HOME"}}); !errors.Is(err, handoff.ErrProtocol) {
		t.Errorf("Upgrade() with a variable without a value = %v, want ErrProtocol", err)
	}
	inherit := start(t, settings{Mode: handoff.Inherit})
	for _, cfg := range []control.UpgradeConfig{{Executable: next}, {Env: []string{"A=1"}}} {
		if _, err := inherit.Upgrade(within(t), &cfg); !errors.Is(err, handoff.ErrUnsupported) {
			t.Errorf("Upgrade(%+v) in mode inherit = %v, want ErrUnsupported", cfg, err)
		}
	}
}

func TestDrain(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := start(t, settings{Mode: mode, Linger: patience})
		c := s.dial()
		saw := false
		l, err := s.Drain(within(t), &control.DrainConfig{OnLinger: func(l control.Linger) {
			if l.Open != 1 || saw {
				return
			}
			saw = true
			if st := s.status(); st.State != handoff.StateStopping || st.Remaining <= 0 {
				t.Errorf("status: %+v", st)
			}
			if err := errors.Join(echo(c), c.Close()); err != nil {
				t.Error(err)
			}
		}})
		if err != nil || !saw || l.Open != 0 || l.Cut != 0 {
			t.Errorf("Drain() = %+v, %v; told of an open connection: %t", l, err, saw)
		}
		if _, err := s.Status(within(t)); !errors.Is(err, control.ErrNoServer) {
			t.Errorf("Status() = %v, want ErrNoServer", err)
		}
	})
}

// TestDrainExit has Drain wait for the end of a process that has something to do
// after its Shutdown.
func TestDrainExit(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := start(t, settings{Mode: mode})
		if _, err := s.Upgrade(within(t), &control.UpgradeConfig{Wait: control.WaitLinger}); err != nil {
			t.Fatal(err)
		}
		late := filepath.Join(s.set.Dir, "late")
		if err := syscall.Mkfifo(late, 0o600); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := s.Drain(within(t), &control.DrainConfig{Wait: control.WaitExit})
			done <- err
		}()
		// This waits until the process has come so far: its Shutdown is over.
		f, err := os.OpenFile(late, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Errorf("Drain() = %v, and the process is still there", err)
			done <- err
		case <-time.After(200 * time.Millisecond):
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("Drain() = %v", err)
		}
		if left := procs.Marked(s.mark()); len(left) > 0 {
			t.Errorf("Drain() has returned, and the process is still there: %v", left)
		}
	})
}

// TestDrainWithoutShutdown has the process's main return at Done: Drain returns, and says
// what is missing. If it can't know that the process has ended, it returns an error.
func TestDrainWithoutShutdown(t *testing.T) {
	for _, wait := range []control.Wait{control.WaitExit, control.WaitLinger, control.WaitNone} {
		t.Run(string(wait), func(t *testing.T) {
			t.Parallel()
			s := start(t, settings{Mode: handoff.Takeover, Careless: true})
			l, err := s.Drain(within(t), &control.DrainConfig{Wait: wait})
			if wait == control.WaitNone && err == nil && l == nil {
				return // the answer came before the end
			}
			if err != nil || l == nil || len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "must call Shutdown") {
				t.Errorf("Drain() = %+v, %v, want a warning", l, err)
			}
		})
	}
	t.Run("a server that goes on", func(t *testing.T) {
		t.Parallel()
		c := fake(t, func(conn *fdpass.Conn) { _ = conn.Close() })
		if l, err := c.Drain(within(t), nil); !errors.Is(err, control.ErrNoAnswer) {
			t.Errorf("Drain() = %+v, %v, want ErrNoAnswer", l, err)
		}
	})
}

// TestFollow gets the events of two upgrades and the end, of each process in order.
func TestFollow(t *testing.T) {
	t.Parallel()
	s := start(t, settings{Mode: handoff.Takeover})
	kinds := map[uint64][]handoff.EventKind{}
	begun, last, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.Follow(within(t), func(e handoff.Event) error {
			if len(kinds) == 0 {
				close(begun)
			}
			kinds[e.Generation] = append(kinds[e.Generation], e.Kind)
			if e.Generation == 3 && len(kinds[3]) == 1 {
				close(last)
			}
			return nil
		})
	}()
	<-begun
	for range 2 {
		if _, err := s.Upgrade(within(t), &control.UpgradeConfig{Wait: control.WaitLinger}); err != nil {
			t.Fatal(err)
		}
	}
	<-last // without a predecessor the drain has no linger to report
	if _, err := s.Drain(within(t), nil); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for gen, want := range map[uint64][]handoff.EventKind{
		1: append([]handoff.EventKind{handoff.EventReady, handoff.EventOwner}, steps...),
		2: {handoff.EventJoined, handoff.EventReady, handoff.EventOwner},
		3: {handoff.EventJoined, handoff.EventReady, handoff.EventOwner},
	} {
		got := kinds[gen]
		if len(got) < len(want) || !slices.Equal(got[:len(want)], want) || !slices.Contains(got, handoff.EventStopped) {
			t.Errorf("events of generation %d: %v, want %v, and stopped", gen, got, want)
		}
	}
}
