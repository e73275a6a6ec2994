package main

import "github.com/seed-11c92bf9/baton/internal/load"

// A verdict says what a failed request means.
type verdict string

// The verdicts.
const (
	failed   verdict = "failed"    // it must not have
	refused  verdict = "refused"   // no process accepted the connection
	inFlight verdict = "in flight" // a process had it that was killed
	inHand   verdict = "in hand"   // likewise, as far as can be known: it was not noted yet
)

// A judge tells failures that a crash explains from others.
type judge struct {
	addresses map[string]string // of targets
	open      []map[string]bool // by killed process: what it had in the end
	hands     int               // how many more may have been in a hand: one for each listener and crash
}

func newJudge(targets []load.Target) *judge {
	j := &judge{addresses: make(map[string]string)}
	for _, t := range targets {
		j.addresses[t.Name] = t.Address
	}
	return j
}

// killed has a process been killed that has noted its connections in a folder.
func (j *judge) killed(dir string, pid int) error {
	open, err := readLedger(dir, pid)
	if err != nil {
		return err
	}
	j.open = append(j.open, open)
	listeners := make(map[string]bool)
	for _, address := range j.addresses {
		listeners[address] = true
	}
	j.hands += len(listeners)
	return nil
}

// judge returns the verdict on a failure. A connection explains one.
func (j *judge) judge(f load.Failure) verdict {
	switch f.Class {
	case load.Refused:
		return refused
	case load.EOF, load.Reset:
	default:
		return failed // a crash ends connections, it does not delay or change answers
	}
	name := connName(f.Local, j.addresses[f.Target])
	for _, open := range j.open {
		if open[name] {
			delete(open, name)
			return inFlight
		}
	}
	// Before the first message of the service.
	if j.hands > 0 && (f.Step == "read greeting" || f.Step == "request") {
		j.hands--
		return inHand
	}
	return failed
}
