package main

import (
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) { testmain.Run(m) }

const output = `goos: linux
pkg: example.com/baton/handoff
BenchmarkAccept/tcp4-2 	 1	 2200 baton-ns/accept	 0 ns/op	 2000 plain-ns/accept
BenchmarkAccept/tcp4-2 	 1	 2000 baton-ns/accept	 0 ns/op	 2000 plain-ns/accept
BenchmarkAccept/tcp4-2 	 1	 9000 baton-ns/accept	 0 ns/op	 2000 plain-ns/accept
PASS
pkg: example.com/baton/handoff/internal/session
BenchmarkTransfer/10000-2  	 3	 100 bare-ns/fd	 150 session-ns/fd
BenchmarkTransfer/253-2  	 3	 100 bare-ns/fd	 120 session-ns/fd
pkg: example.com/baton/handoff/handoffhttp
BenchmarkMoveIdle/takeover/100-2  	 3	 1 ms-moving/op
pkg: example.com/baton/reuseport
BenchmarkWeights/10%-2  	 3	 10.1 percent
ok  	example.com/baton/reuseport	1.000s
`

func TestRatios(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run(strings.NewReader(output), &out); err != nil {
		t.Fatal(err)
	}
	copied, table, _ := strings.Cut(out.String(), "\n\n")
	if copied+"\n" != output {
		t.Errorf("copied %q, want what was read", copied)
	}
	var got []string
	for line := range strings.Lines(table) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	for i, want := range []string{
		"WHAT BENCHMARK BATON LIMIT RATIO LIMIT IS",
		"accept, ns handoff.Accept/tcp4 2200 2000 1.100 net.Listener",
		"sockets of a service, ns each session.Transfer/253 120 100 1.200 a bare loop of sendmsg and recvmsg",
		"sockets of a service, ns each session.Transfer/10000 150 100 1.500 a bare loop of sendmsg and recvmsg",
		"idle HTTP connections move, takeover, ns handoffhttp.MoveIdle/takeover/100 1000000 10000 100.000 a bare loop",
		"steering by weight, percent reuseport.Weights/10% 10.1 10 1.010 what was asked for",
		"",
		"not in this run: accept in a group, with the dial, ns; ",
	} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("line %d of %q, want %q", i, got, want)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "PASS\n", output + "FAIL	example.com/baton\n", output + "--- FAIL: BenchmarkAccept\n", "BenchmarkA 	 1	 x ns/op\n"} {
		if err := run(strings.NewReader(text), new(strings.Builder)); err == nil {
			t.Errorf("no error for %q", text)
		}
	}
}
