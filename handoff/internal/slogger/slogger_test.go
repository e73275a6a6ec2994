package slogger_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/slogger"
)

// TestLogger writes lines by way of hclog, and reads what slog makes of them.
func TestLogger(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	l := slogger.New(slog.New(slog.NewJSONHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug})))
	l.Named("a").Named("b").With("k", "v").Warn("hello", "n", 1)
	l.Trace("below")
	var got map[string]any
	if err := json.Unmarshal(buf.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, buf.String())
	}
	for k, want := range map[string]any{"level": "WARN", "msg": "hello", "k": "v", "n": 1.0, "logger": "a.b"} {
		if got[k] != want {
			t.Errorf("log line has %s=%v, want %v", k, got[k], want)
		}
	}
	if l.IsTrace() || !l.IsDebug() || l.GetLevel() != hclog.Debug {
		t.Errorf("IsTrace() = %t, IsDebug() = %t, GetLevel() = %v, want false, true, debug", l.IsTrace(), l.IsDebug(), l.GetLevel())
	}
	if strings.Count(buf.String(), "\n") != 1 {
		t.Errorf("a trace line came through:\n%s", buf.String())
	}
}
