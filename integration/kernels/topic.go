package main

import (
	"fmt"
	"regexp"
)

// A topic is a fact of the kernel that the project stands on, and the tests that
// show it.
type topic struct {
	name  string
	pkg   string
	tests *regexp.Regexp
}

// topics are the facts, in order.
func topics() []topic {
	return []topic{
		{name: "steering", pkg: "reuseport", tests: regexp.MustCompile(`^TestSteer`)},
		{name: "inet_diag", pkg: "reuseport", tests: regexp.MustCompile(`^Test(QueueLen|HalfOpen)`)},
		{name: "SCM_RIGHTS", pkg: "handoff/internal/fdpass", tests: regexp.MustCompile(`^Test`)},
		{name: "exact drain", pkg: "reuseport", tests: regexp.MustCompile(`^TestDrain(OfSeveralProcesses|WhileOthersComeAndGo|UDP)`)},
		{name: "drain, 50 ms link", pkg: "reuseport", tests: regexp.MustCompile(`^TestDrainMatrix`)},
		{name: "conversation", pkg: "handoff/internal/session", tests: regexp.MustCompile(`^Test`)},
		{name: "clock steps", pkg: gauntletPackage, tests: regexp.MustCompile(`^TestClockSteps/`)},
		{name: "inherit", pkg: "handoff", tests: regexp.MustCompile(`/inherit`)},
		{name: "takeover", pkg: "handoff", tests: regexp.MustCompile(`/takeover`)},
		{name: "drain", pkg: "handoff", tests: regexp.MustCompile(`/drain`)},
	}
}

// state is what a kernel has shown of a topic.
type state struct {
	Passed  int    `json:"passed"`
	Failed  int    `json:"failed"`
	Skipped int    `json:"skipped"`
	Reason  string `json:"reason,omitempty"`
}

// bad reports whether the topic is not as it should be.
func (s state) bad() bool {
	return s.Failed > 0 || s.Passed == 0
}

func (s state) String() string {
	switch {
	case s.Failed > 0:
		return fmt.Sprintf("%d FAILED", s.Failed)
	case s.Passed == 0:
		return "NOT SEEN"
	}
	return fmt.Sprintf("%d", s.Passed)
}

// judge fills in the topics whose packages were run.
func (k *kernelResult) judge() {
	k.Topics = make(map[string]state)
	for _, tp := range topics() {
		for _, r := range k.Runs {
			if r.Package != tp.pkg {
				continue
			}
			s := state{}
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
}
