package load

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Stats is what [Run] has counted.
type Stats struct {
	// Seconds is how long it has run.
	Seconds float64 `json:"seconds"`
	// Connections counts the exchanges that are over, failed ones included:
	// connections, datagrams and HTTP requests.
	Connections uint64 `json:"connections"`
	// Questions counts the answers on all of them.
	Questions uint64 `json:"questions"`
	Failed    uint64 `json:"failed"`
	// Failures counts the failed ones by class.
	Failures map[Class]uint64 `json:"failures,omitempty"`
	// LongestGapMS is the longest time between two accepts of one target, in
	// milliseconds, as the client sees it: from one greeting to the next. The
	// kinds Once and HTTP count.
	LongestGapMS float64 `json:"longest_gap_ms"`
	// StallMS is the longest time, in milliseconds, in which the clients
	// themselves did not get to run: a gap can't be measured finer.
	StallMS float64 `json:"stall_ms"`
	// AnsweredLast is the version that gave the last answer to a new
	// connection, datagram or request.
	AnsweredLast string `json:"answered_last"`
	// Crossed counts the connections of the kinds Keep and Marked under which
	// the service was replaced, and that it served to their end.
	Crossed uint64 `json:"crossed"`
	// Moved counts how often the next answer on a connection of kind Post came
	// from another version than the one before.
	Moved uint64 `json:"moved"`
	// Open is the number of connections of the kinds Keep and Marked now.
	Open int `json:"open"`
	// Targets has the same for each target.
	Targets map[string]TargetStats `json:"targets"`
	// Samples are the first failures.
	Samples []Failure `json:"samples,omitempty"`
}

// TargetStats is the part of one target in [Stats].
type TargetStats struct {
	Kind         Kind              `json:"kind"`
	Connections  uint64            `json:"connections"`
	Questions    uint64            `json:"questions"`
	Failed       uint64            `json:"failed"`
	LongestGapMS float64           `json:"longest_gap_ms"`
	AnsweredLast string            `json:"answered_last"`
	Versions     map[string]uint64 `json:"versions,omitempty"` // exchanges by version
}

// A Failure is an exchange that failed.
type Failure struct {
	Seconds float64 `json:"seconds"` // since the start
	Target  string  `json:"target"`
	Class   Class   `json:"class"`
	Step    string  `json:"step"` // what the client was about to do
	// Local is the client's address on the connection, if there was one.
	Local string `json:"local,omitempty"`
	Error string `json:"error"`
}

// maxSamples bounds Stats.Samples.
const maxSamples = 10

// recorder collects what the workers see.
type recorder struct {
	start time.Time

	mu         sync.Mutex
	stats      Stats
	generation uint64 // the highest seen
	targets    map[string]*targetRecord
	stopped    time.Time // no new connections since then; zero before
}

type targetRecord struct {
	TargetStats
	last    time.Time // of an accept
	longest time.Duration
}

// gaps reports whether the time between two accepts means anything: whether
// the client opens one connection after the other.
func (t *targetRecord) gaps() bool { return t.Kind == Once || t.Kind == HTTP }

func newRecorder(targets []Target, now time.Time) *recorder {
	r := &recorder{start: now, targets: make(map[string]*targetRecord)}
	r.stats.Failures = make(map[Class]uint64)
	for _, t := range targets {
		r.targets[t.Name] = &targetRecord{TargetStats: TargetStats{Kind: t.Kind, Versions: make(map[string]uint64)}}
	}
	return r
}

// accepted notes that the service has taken a connection.
func (r *recorder) accepted(target, version string, generation uint64) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.targets[target]
	if !t.last.IsZero() {
		t.longest = max(t.longest, now.Sub(t.last))
	}
	t.last = now
	t.AnsweredLast = version
	if t.Kind.Short() {
		r.stats.AnsweredLast = version
	}
	r.generation = max(r.generation, generation)
}

// opened notes a connection that will stay open.
func (r *recorder) opened() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Open++
}

// closed notes the end of such a connection; it counts as crossed if it ended
// well and a later generation was seen meanwhile.
func (r *recorder) closed(generation uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Open--
	if err == nil && generation < r.generation {
		r.stats.Crossed++
	}
}

// moved notes that another version continues a connection.
func (r *recorder) moved() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Moved++
}

// done notes the end of an exchange. local is the client's address. It returns
// what has failed, or nil.
func (r *recorder) done(target, version string, questions uint64, step, local string, err error) *Failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.targets[target]
	t.Connections++
	t.Questions += questions
	r.stats.Connections++
	r.stats.Questions += questions
	if version != "" {
		t.Versions[version]++
	}
	if err == nil {
		return nil
	}
	f := &Failure{
		Seconds: time.Since(r.start).Seconds(), Target: target, Class: Classify(err), Step: step, Local: local, Error: err.Error(),
	}
	t.Failed++
	r.stats.Failed++
	r.stats.Failures[f.Class]++
	if len(r.stats.Samples) < maxSamples {
		r.stats.Samples = append(r.stats.Samples, *f)
	}
	return f
}

// stalled notes a time in which this process did not get to run.
func (r *recorder) stalled(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.StallMS = max(r.stats.StallMS, milliseconds(d))
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// stop notes that the clients open no more connections.
func (r *recorder) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = time.Now()
}

// snapshot returns the counts. An open gap counts with its length so far.
func (r *recorder) snapshot() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	s := r.stats
	s.Seconds = now.Sub(r.start).Seconds()
	s.Failures = maps.Clone(s.Failures)
	s.Samples = slices.Clone(s.Samples)
	s.Targets = make(map[string]TargetStats)
	if !r.stopped.IsZero() {
		now = r.stopped
	}
	for name, t := range r.targets {
		ts := t.TargetStats
		ts.Versions = maps.Clone(ts.Versions)
		if t.gaps() {
			since := t.last
			if since.IsZero() {
				since = r.start
			}
			gap := max(t.longest, now.Sub(since))
			ts.LongestGapMS = milliseconds(gap)
			s.LongestGapMS = max(s.LongestGapMS, ts.LongestGapMS)
		}
		s.Targets[name] = ts
	}
	return s
}
