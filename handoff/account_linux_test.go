package handoff_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// jsonLog is a log in JSON, a line each.
type jsonLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *jsonLog) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines returns the lines that have a member.
func (b *jsonLog) lines(t *testing.T, member string) []map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []map[string]any
	for line := range strings.Lines(b.buf.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Errorf("a line of the log is no JSON: %v: %s", err, line)
		}
		if _, ok := m[member]; ok {
			found = append(found, m)
		}
	}
	return found
}

// TestAccount looks for failed upgrades and a committed one in all places that report
// them: the log of either kind, and the status of the successor, which inherits the
// totals.
func TestAccount(t *testing.T) {
	t.Parallel()
	for name, logger := range map[string]func(*jsonLog) hclog.Logger{
		"hclog": func(b *jsonLog) hclog.Logger {
			return hclog.New(&hclog.LoggerOptions{Output: b, JSONFormat: true})
		},
		"slog": func(b *jsonLog) hclog.Logger {
			return handoff.SlogLogger(slog.New(slog.NewJSONHandler(b, nil)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log jsonLog
			dir := testenv.ShortDir(t)
			program := testenv.Script(t, "echo one >&2\necho two >&2\nexit 3\n")
			cfg := handoff.Config{
				ControlSocket: filepath.Join(dir, "c", "s"), Version: "1.0", Executable: program,
				Logger: logger(&log), Probation: -1,
			}
			first := newUpgrader(t, cfg)
			serves := func(up *handoff.Upgrader) {
				if _, err := up.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
					t.Fatal(err)
				}
				if err := up.Ready(); err != nil {
					t.Fatal(err)
				}
			}
			serves(first)
			for range 2 {
				if err := first.Upgrade(t.Context()); !errors.Is(err, handoff.ErrSuccessorDied) {
					t.Fatalf("Upgrade() = %v, want ErrSuccessorDied", err)
				}
			}
			if got, want := first.Status().Totals, (handoff.Totals{Failed: 2}); got == nil || *got != want {
				t.Errorf("totals of the first = %+v, want %+v", got, want)
			}
			cfg.Version, cfg.Logger = "2.0", nil
			second := newUpgrader(t, cfg)
			if got := second.Status().Totals; got != nil {
				t.Errorf("totals of the second before its commit = %+v, want nil", got)
			}
			serves(second)
			<-first.Done()
			if err := first.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}

			lines := log.lines(t, "outcome")
			if len(lines) != 3 {
				t.Fatalf("%d lines tell of an outcome, want 3: %v", len(lines), lines)
			}
			level := "level"
			if name == "hclog" {
				level = "@level"
			}
			for i, want := range []map[string]any{
				0: {"outcome": "failed", "mode": "takeover", "from": "1.0", "generation": 2.0, "queue": -1.0, level: "error"},
				2: {"outcome": "committed", "mode": "takeover", "from": "1.0", "to": "2.0", "generation": 2.0, "sockets": 1.0, level: "info"},
			} {
				for key, value := range want {
					got := lines[i][key]
					if s, ok := got.(string); ok && key == level {
						got = strings.ToLower(s)
					}
					if got != value {
						t.Errorf("line %d has %s=%v, want %v: %v", i, key, lines[i][key], value, lines[i])
					}
				}
				if took, ok := lines[i]["took"].(float64); !ok || took <= 0 {
					t.Errorf("line %d has took=%v, want nanoseconds", i, lines[i]["took"])
				}
			}
			if lines[0]["commit"] != 0.0 || lines[0]["start"] == 0.0 {
				t.Errorf("an upgrade that has failed at its start took commit=%v, start=%v, want 0 and more", lines[0]["commit"], lines[0]["start"])
			}
			if lines[0]["stderr"] != "one | two" {
				t.Errorf("line of the failure has stderr=%v, want both lines", lines[0]["stderr"])
			}
			if reason, _ := lines[0]["reason"].(string); !strings.Contains(reason, "the successor died") {
				t.Errorf("line of the failure has reason=%q, want what came of it", reason)
			}
			if linger := log.lines(t, "cut"); len(linger) != 1 || linger[0]["generation"] != 2.0 {
				t.Errorf("lines of the linger: %v, want one", linger)
			}

			want := handoff.Totals{Committed: 1, Failed: 2}
			deadline := time.After(10 * time.Second)
			for { // the account comes right behind the commit
				st := second.Status()
				if st.Totals != nil && *st.Totals == want && len(st.Upgrades) == 3 {
					break
				}
				select {
				case <-deadline:
					t.Fatalf("the successor has totals %+v and %d upgrades, want %+v and 3", st.Totals, len(st.Upgrades), want)
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
}

// TestAccountRolledBack takes an upgrade back in probation.
func TestAccountRolledBack(t *testing.T) {
	t.Parallel()
	var log jsonLog
	paused := make(chan struct{})
	cfg := handoff.Config{
		ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s"), Probation: time.Hour,
		Logger: handoff.SlogLogger(slog.New(slog.NewJSONHandler(&log, nil))),
		OnEvent: func(e handoff.Event) {
			if e.Kind == handoff.EventPaused {
				close(paused)
			}
		},
	}
	first := newUpgrader(t, cfg)
	if err := first.Ready(); err != nil {
		t.Fatal(err)
	}
	cfg.Logger, cfg.OnEvent = nil, nil
	second := newUpgrader(t, cfg)
	if err := second.Ready(); err != nil {
		t.Fatal(err)
	}
	<-paused
	if err := first.Abort(errors.New("it looks bad\nand worse")); err != nil {
		t.Fatal(err)
	}
	<-second.Done()
	if err := second.Err(); !errors.Is(err, handoff.ErrRolledBack) {
		t.Errorf("Err() of the successor = %v, want ErrRolledBack", err)
	}
	deadline := time.After(10 * time.Second)
	for len(first.Status().Upgrades) == 0 {
		select {
		case <-deadline:
			t.Fatal("the upgrade does not end")
		case <-time.After(5 * time.Millisecond):
		}
	}
	st := first.Status()
	r := st.Upgrades[0]
	if d := r.Durations; r.Outcome != handoff.OutcomeRolledBack || d.Warming <= 0 || d.Probation <= 0 || d.Commit != 0 || d.Total < d.Probation {
		t.Errorf("account: %+v, want one that was rolled back in probation", r)
	}
	if want := (handoff.Totals{RolledBack: 1}); *st.Totals != want {
		t.Errorf("totals = %+v, want %+v", *st.Totals, want)
	}
	lines := log.lines(t, "outcome")
	if len(lines) != 1 || lines[0]["outcome"] != "rolled-back" {
		t.Fatalf("lines: %v, want one that tells of the rollback", lines)
	}
	if reason, _ := lines[0]["reason"].(string); !strings.Contains(reason, "it looks bad | and worse") {
		t.Errorf("reason=%q, want the operator's, in one line", reason)
	}
}
