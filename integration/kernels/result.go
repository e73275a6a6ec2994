package main

import (
	"regexp"
	"slices"
	"strings"
)

// result is what a run has found.
type result struct {
	Seconds float64         `json:"seconds"`
	Kernels []*kernelResult `json:"kernels"`
}

// kernelResult is what one kernel's machine has found.
type kernelResult struct {
	Suite   string           `json:"suite"`
	Release string           `json:"release"`
	Seconds float64          `json:"seconds"`
	Absent  []string         `json:"absent,omitempty"` // modules that the kernel does not have, or does not load
	Runs    []*runResult     `json:"runs"`
	Topics  map[string]state `json:"topics"`
	Error   string           `json:"error,omitempty"`
	Console string           `json:"console,omitempty"` // files
	Log     string           `json:"log,omitempty"`
}

// runResult is what one binary has found.
type runResult struct {
	Package  string              `json:"package"`
	Seconds  float64             `json:"seconds"`
	Passed   int                 `json:"passed"`
	Failed   int                 `json:"failed"`
	Skipped  int                 `json:"skipped"`
	Skips    map[string][]string `json:"skips,omitempty"` // tests by reason
	Failures []failure           `json:"failures,omitempty"`
	Error    string              `json:"error,omitempty"`
	tests    map[string]*test
	rest     []string // output of no test
	over     bool
}

// failure is a test that has failed.
type failure struct {
	Test   string `json:"test"`
	Output string `json:"output"`
}

// test is what is known of a test.
type test struct {
	outcome outcome
	output  []string
	parent  bool // of subtests, and not counted
}

// testEvent is one of test2json's.
type testEvent struct {
	Action  string
	Test    string
	Elapsed float64
	Output  string
}

type outcome string

const (
	passed  outcome = "pass"
	failed  outcome = "fail"
	skipped outcome = "skip"
	running outcome = ""
)

func newRunResult(pkg string) *runResult {
	return &runResult{Package: pkg, Skips: make(map[string][]string), tests: make(map[string]*test)}
}

// note takes an event of test2json.
func (r *runResult) note(e testEvent) {
	if e.Test == "" { // the whole, of which exit(2) says more
		if e.Action == "output" {
			r.rest = append(r.rest, e.Output)
		}
		return
	}
	t := r.tests[e.Test]
	if t == nil {
		t = new(test)
		r.tests[e.Test] = t
		for name := e.Test; ; {
			cut := strings.LastIndexByte(name, '/')
			if cut < 0 {
				break
			}
			name = name[:cut]
			if parent := r.tests[name]; parent != nil {
				parent.parent = true
			}
		}
	}
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output)
	case "pass", "fail", "skip":
		t.outcome = outcome(e.Action)
	}
}

// said is a line of a test's own: file, line, text.
var said = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)`)

// reason is the last thing that a test has said.
func (t *test) reason() string {
	for _, line := range slices.Backward(t.output) {
		if m := said.FindStringSubmatch(line); m != nil {
			return strings.TrimSpace(m[1])
		}
	}
	return "no reason given"
}

// maxOutput bounds what is kept of a failure; the log has it all.
const maxOutput = 4000

// end counts, when the binary has ended with this status; text says more.
func (r *runResult) end(status int, text string, seconds float64) {
	r.over, r.Seconds = true, seconds
	for name, t := range r.tests {
		switch {
		case t.outcome == failed, t.outcome == running:
			// A parent fails with its children; alone, by itself.
			if t.parent && r.childFailed(name) {
				continue
			}
			r.Failed++
			out := strings.Join(t.output, "")
			if t.outcome == running {
				out += "(did not end)\n"
			}
			r.Failures = append(r.Failures, failure{name, out[max(0, len(out)-maxOutput):]})
		case t.parent:
		case t.outcome == skipped:
			r.Skipped++
			r.Skips[t.reason()] = append(r.Skips[t.reason()], name)
		default:
			r.Passed++
		}
	}
	slices.SortFunc(r.Failures, func(a, b failure) int { return strings.Compare(a.Test, b.Test) })
	for _, names := range r.Skips {
		slices.Sort(names)
	}
	switch {
	case text != "" && r.Failed == 0:
		rest := strings.Join(r.rest, "")
		r.Error = "the tests' process: " + text + "\n" + rest[max(0, len(rest)-maxOutput):]
	case status == 0 && len(r.tests) == 0:
		r.Error = "no test has run"
	}
}

func (r *runResult) childFailed(parent string) bool {
	for name, t := range r.tests {
		if strings.HasPrefix(name, parent+"/") && (t.outcome == failed || t.outcome == running) {
			return true
		}
	}
	return false
}

// ok reports whether all is as it should be.
func (r *runResult) ok() bool { return r.over && r.Failed == 0 && r.Error == "" }

// ok reports whether all is as it should be, topics included.
func (k *kernelResult) ok() bool {
	for _, s := range k.Topics {
		if s.bad() {
			return false
		}
	}
	return k.Error == "" && len(k.Runs) > 0 && !slices.ContainsFunc(k.Runs, func(r *runResult) bool { return !r.ok() })
}

func (r *result) ok() bool {
	return len(r.Kernels) > 0 && !slices.ContainsFunc(r.Kernels, func(k *kernelResult) bool { return !k.ok() })
}
