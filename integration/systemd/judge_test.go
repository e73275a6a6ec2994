package main

import (
	"testing"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// TestJudge wants a crash to explain what it explains, once, and nothing else.
func TestJudge(t *testing.T) {
	t.Parallel()
	const client, server = "127.0.0.1:4000", "127.0.0.1:80"
	ledger := "+" + connName(client, server) + "\n+" + connName("127.0.0.1:4001", server) + "\n-" + connName("127.0.0.1:4001", server) + "\n"
	j := &judge{addresses: map[string]string{"x": server}, open: []map[string]bool{openAtEnd(ledger)}, hands: 1}
	for i, c := range []struct {
		f    load.Failure
		want verdict
	}{
		{load.Failure{Target: "x", Class: load.Refused, Step: "connect"}, refused},
		{load.Failure{Target: "x", Class: load.Timeout, Step: "read answer", Local: client}, failed},
		{load.Failure{Target: "x", Class: load.Wrong, Step: "read answer", Local: client}, failed},
		{load.Failure{Target: "x", Class: load.Reset, Step: "read answer", Local: client}, inFlight},
		{load.Failure{Target: "x", Class: load.Reset, Step: "read answer", Local: client}, failed},         // the same again
		{load.Failure{Target: "x", Class: load.EOF, Step: "read answer", Local: "127.0.0.1:4001"}, failed}, // it had been let go
		{load.Failure{Target: "x", Class: load.EOF, Step: "read greeting", Local: "127.0.0.1:4002"}, inHand},
		{load.Failure{Target: "x", Class: load.EOF, Step: "read greeting", Local: "127.0.0.1:4003"}, failed}, // one hand holds one
	} {
		if got := j.judge(c.f); got != c.want {
			t.Errorf("%d: judge(%+v) = %q, want %q", i, c.f, got, c.want)
		}
	}
}
