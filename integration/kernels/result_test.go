package main

import (
	"bytes"
	"strings"
	"testing"
)

// events are what test2json makes of a binary.
func events(r *runResult, all ...testEvent) *runResult {
	for _, e := range all {
		r.note(e)
	}
	return r
}

func ran(test, action string, output ...string) []testEvent {
	all := []testEvent{{Action: "run", Test: test}}
	for _, text := range output {
		all = append(all, testEvent{Action: "output", Test: test, Output: text})
	}
	if action != "" {
		all = append(all, testEvent{Action: action, Test: test})
	}
	return all
}

func TestCounts(t *testing.T) {
	t.Parallel()
	r := newRunResult("reuseport")
	events(r, ran("TestA", "")...)
	events(r, ran("TestA/one", "pass")...)
	events(r, ran("TestA/two", "skip", "    a_test.go:7: needs root: effective user id is 7\n")...)
	events(r, testEvent{Action: "pass", Test: "TestA"})
	events(r, ran("TestB", "")...)
	events(r, ran("TestB/one", "fail", "    b_test.go:9: lost 3\n")...)
	events(r, testEvent{Action: "fail", Test: "TestB"})
	events(r, ran("TestC", "")...) // the machine stopped in it
	events(r, ran("TestD", "pass")...)
	r.end(1, "exit status 1", 2)
	if r.Passed != 2 || r.Failed != 2 || r.Skipped != 1 || r.ok() {
		t.Errorf("%d passed, %d failed, %d skipped, ok: %t; want 2, 2, 1, false", r.Passed, r.Failed, r.Skipped, r.ok())
	}
	if names := r.Skips["needs root: effective user id is 7"]; len(names) != 1 || names[0] != "TestA/two" {
		t.Errorf("skips %q", r.Skips)
	}
	if len(r.Failures) != 2 || r.Failures[0].Test != "TestB/one" || !strings.Contains(r.Failures[0].Output, "lost 3") || r.Failures[1].Test != "TestC" {
		t.Errorf("failures %+v", r.Failures)
	}
}

// A run in which nothing is wrong but its end, or in which nothing has run, is
// no success.
func TestEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		events []testEvent
		status int
		text   string
		ok     bool
	}{
		"all is well":      {ran("TestA", "pass"), 0, "", true},
		"something leaked": {append(ran("TestA", "pass"), testEvent{Action: "output", Output: "testmain: goroutines are left"}), 1, "exit status 1", false},
		"nothing has run":  {nil, 0, "", false},
	} {
		r := events(newRunResult("p"), c.events...)
		r.end(c.status, c.text, 1)
		if r.ok() != c.ok {
			t.Errorf("%s: ok() = %t, %q", name, r.ok(), r.Error)
		}
	}
	if r := events(newRunResult("p"), ran("TestA", "pass")...); r.ok() {
		t.Error("ok() of a run that has not ended = true")
	}
	if new(result).ok() || (&kernelResult{}).ok() {
		t.Error("nothing was run, and ok() = true")
	}
}

func TestTopics(t *testing.T) {
	t.Parallel()
	const rights = "TestRights/batch"
	for _, c := range []struct {
		action, state string
		bad           bool
	}{
		{"pass", "1", false},
		{"skip", "NOT SEEN", true},
		{"fail", "1 FAILED", true},
		{"", "1 FAILED", true},
	} {
		r := events(newRunResult("handoff/internal/fdpass"), ran(rights, c.action)...)
		r.end(0, "", 1)
		k := &kernelResult{Release: "6.1.0-50-cloud-amd64", Runs: []*runResult{r}}
		k.judge()
		s := k.Topics["SCM_RIGHTS"]
		if s.String() != c.state || s.bad() != c.bad {
			t.Errorf("%q: %v, bad: %t, want %s, %t", c.action, s, s.bad(), c.state, c.bad)
		}
		if _, ok := k.Topics["exact drain"]; ok {
			t.Error("a topic whose package was not run")
		}
		res := &result{Kernels: []*kernelResult{k}}
		if res.ok() == c.bad {
			t.Errorf("%q: ok() = %t", c.action, res.ok())
		}
		var b bytes.Buffer
		if err := res.writeTable(&b); err != nil || !strings.Contains(b.String(), c.state) {
			t.Errorf("writeTable() = %v:\n%s", err, &b)
		}
	}
}
