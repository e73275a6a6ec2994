package control_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

var update = flag.Bool("update", false, "write the golden bodies of the newest version, and the fuzz seeds made of them")

var when = time.Date(2026, time.July, 1, 12, 30, 0, 0, time.UTC)

var report = handoff.Report{
	Generation: 3, Mode: handoff.Takeover,
	Predecessor: handoff.Process{PID: 10, Version: "1.0"}, Successor: handoff.Process{PID: 11, Version: "1.1"},
	Started:   when,
	Durations: handoff.Durations{Start: 1, Transfer: 2, Warming: 3, Probation: 4, Commit: 5, Linger: 6, Total: 15},
	Sockets:   2, States: 1, Queue: 4, HalfOpen: -1, AcceptedBefore: 7, AcceptedAfter: 8,
	Open: 9, Moved: 5, Cut: 1, CutBy: map[string]uint64{"tracked": 1},
	Outcome: handoff.OutcomeCommitted,
}

var event = handoff.Event{Time: when, Kind: handoff.EventUpgradeFailed, PID: 10, Generation: 2, Report: &report, Reason: "it died"}

var status = handoff.Status{
	Name: "api", PID: 10, UID: 33, Generation: 2, Version: "1.0",
	Build:      "example.org/api v1.0.0 abc modified, go1.25.0",
	Executable: "/usr/bin/api", Mode: handoff.Takeover, State: handoff.StateServing,
	Started: when, Uptime: time.Hour, Open: 3, Moved: 2, Cut: 1, Remaining: -1, Accepted: 99,
	Sockets: []handoff.SocketStatus{{
		Name: "web", Kind: "listener", Network: "tcp", Address: "[::]:80", Queue: 1, Backlog: 4096, HalfOpen: 2, Accepted: 99,
	}},
	Lingering: []handoff.Process{{
		PID: 9, Version: "0.9", Generation: 1, Open: 4, Moved: 5, Remaining: time.Second,
	}},
	Upgrade: &event, Upgrades: []handoff.Report{report},
	Totals: &handoff.Totals{Committed: 20, RolledBack: 2, Failed: 1, Moved: 50, Cut: 3},
}

// bodies has one of each body. The golden ones are made of them.
var bodies = map[string]any{
	"upgrade":  operate.Upgrade{Executable: "/usr/bin/api", Env: []string{"A=1"}, Timeout: time.Minute, Wait: operate.WaitLinger},
	"rollback": operate.Rollback{Reason: "it looks bad"},
	"drain":    operate.Drain{Reason: "maintenance", Wait: operate.WaitNone},
	"events":   operate.Events{Follow: true},
	"answer-status": operate.Answer{
		Status: status,
	},
	"answer-event":  operate.Answer{Event: event},
	"answer-report": operate.Answer{Report: report},
	"answer-linger": operate.Answer{Linger: &operate.Linger{Open: 1, Moved: 2, Cut: 3, Remaining: -1}},
	"answer-failure": operate.Answer{Failure: &operate.Failure{
		Reason: failure.SuccessorDied, Text: "it died",
		Upgrade: &operate.FailedUpgrade{Outcome: "failed", PID: 11, Stderr: []string{"panic: x"}},
	}},
}

func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // none of them can fail
	}
	return b
}

// TestGolden wants this version to say what it has always said: a body that was
// written once is read as it was meant, and written the same.
func TestGolden(t *testing.T) {
	t.Parallel()
	const dir = "testdata/v1"
	for name, body := range bodies {
		path := filepath.Join(dir, name+".json")
		var want bytes.Buffer
		if err := json.Indent(&want, raw(body), "", "\t"); err != nil {
			t.Fatal(err)
		}
		want.WriteByte('\n')
		if *update {
			write(t, path, want.Bytes())
			write(t, filepath.Join("testdata/fuzz/FuzzAnswer", name), []byte("go test fuzz v1\n[]byte("+string(raw(string(raw(body))))+")\n"))
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.String(), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	var got handoff.Status
	if err := json.Unmarshal(raw(status), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(status, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// FuzzAnswer feeds the client with what a server may say.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte(`{"status":null,"event":[],"report":7,"linger":{},"failure":null}`))
	f.Add([]byte(`{"status":{"sockets":[{"queue":1e99}]}}`))
	f.Add([]byte(`{"event":{"report":{"mode":"teleport"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		// No answer makes it panic, and an error says which.
		if err := control.Decode(&wire.Response{Version: 1, Body: body}); err != nil && err.Error() == "" {
			t.Errorf("Decode(%q): an error without a text", body)
		}
	})
}
