package load

import "time"

// Recorder is the collector of a run.
type Recorder = recorder

func NewRecorder(targets ...Target) *Recorder { return newRecorder(targets, time.Now()) }

func (r *Recorder) Accepted(target, version string, generation uint64) {
	r.accepted(target, version, generation)
}

func (r *Recorder) Opened()                             { r.opened() }
func (r *Recorder) Closed(generation uint64, err error) { r.closed(generation, err) }
func (r *Recorder) Stop()                               { r.stop() }
func (r *Recorder) Snapshot() Stats                     { return r.snapshot() }

func (r *Recorder) Fail(target string, err error) { r.done(target, "", 0, "test", "", err) }

// ParseLine parses a line of the service and returns it as it would write it.
func ParseLine(line string) (string, error) {
	if h, err := parseHello(line); err == nil {
		return h.String(), nil
	}
	a, err := parseAnswer(line)
	return a.String(), err
}
