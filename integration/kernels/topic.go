package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A topic is a fact of the kernel that the project stands on, and the tests that
// show it.
type topic struct {
	name  string
	pkg   string
	tests *regexp.Regexp
	since version // of the kernel; before, each of the tests must say why it is skipped
}

// topics are the facts, in order.
func topics() []topic {
	return []topic{
		{name: "steering", pkg: "reuseport", tests: regexp.MustCompile(`^TestSteer`)},
		{name: "inet_diag", pkg: "reuseport", tests: regexp.MustCompile(`^Test(QueueLen|HalfOpen)`)},
		{name: "SCM_RIGHTS", pkg: "handoff/internal/fdpass", tests: regexp.MustCompile(`^Test`)},
		{name: "exact drain", pkg: "reuseport", tests: regexp.MustCompile(`^TestDrain(OfSeveralProcesses|WhileOthersComeAndGo|UDP)`)},
		{name: "drain, 50 ms link", pkg: "reuseport", tests: regexp.MustCompile(`^TestDrainMatrix`)},
		{name: "select-or-migrate", pkg: "reuseport/ebpf", tests: regexp.MustCompile(`^TestDrain`), since: version{5, 14}},
		{name: "conversation", pkg: "handoff/internal/session", tests: regexp.MustCompile(`^Test`)},
		{name: "clock steps", pkg: gauntletPackage, tests: regexp.MustCompile(`^TestClockSteps/`)},
		{name: "inherit", pkg: "handoff", tests: regexp.MustCompile(`/inherit`)},
		{name: "takeover", pkg: "handoff", tests: regexp.MustCompile(`/takeover`)},
		{name: "drain", pkg: "handoff", tests: regexp.MustCompile(`/drain`)},
	}
}

// version is a kernel's.
type version [2]int

// parseVersion reads the first two numbers of a release, such as 5.10.0-46-amd64.
func parseVersion(release string) (v version, err error) {
	for i := range v {
		digits := release
		if end := strings.IndexFunc(release, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
			digits = release[:end]
		}
		if v[i], err = strconv.Atoi(digits); err != nil {
			return v, fmt.Errorf("kernel release: %w", err)
		}
		release = strings.TrimPrefix(release[len(digits):], ".")
	}
	return v, nil
}

func (v version) before(w version) bool {
	return v[0] < w[0] || v[0] == w[0] && v[1] < w[1]
}

// state is what a kernel has shown of a topic.
type state struct {
	Passed  int    `json:"passed"`
	Failed  int    `json:"failed"`
	Skipped int    `json:"skipped"`
	Lacks   bool   `json:"lacks,omitempty"` // the kernel is too old
	Reason  string `json:"reason,omitempty"`
}

// bad reports whether the topic is not as it should be.
func (s state) bad() bool {
	if s.Lacks { // and says so
		return s.Passed+s.Failed > 0 || s.Skipped == 0
	}
	return s.Failed > 0 || s.Passed == 0
}

func (s state) String() string {
	switch {
	case s.Failed > 0:
		return fmt.Sprintf("%d FAILED", s.Failed)
	case s.Lacks && !s.bad():
		return "refused"
	case s.Passed == 0 || s.bad():
		return "NOT SEEN"
	}
	return fmt.Sprintf("%d", s.Passed)
}

// judge fills in the topics whose packages were run.
func (k *kernelResult) judge() error {
	v, err := parseVersion(k.Release)
	if err != nil {
		return err
	}
	k.Topics = make(map[string]state)
	for _, tp := range topics() {
		for _, r := range k.Runs {
			if r.Package != tp.pkg {
				continue
			}
			s := state{Lacks: v.before(tp.since)}
			for name, t := range r.tests {
				if t.parent || !tp.tests.MatchString(name) {
					continue
				}
				switch t.outcome {
				case passed:
					s.Passed++
				case skipped:
					s.Skipped++
					s.Reason = t.reason()
				default:
					s.Failed++
				}
			}
			k.Topics[tp.name] = s
		}
	}
	return nil
}
