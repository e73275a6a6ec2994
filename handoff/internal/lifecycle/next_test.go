package lifecycle_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
)

// events has every event, by its name.
var events = map[lifecycle.Event]string{
	lifecycle.Join: "Join", lifecycle.Ready: "Ready", lifecycle.Start: "Start", lifecycle.Own: "Own", lifecycle.Leave: "Leave", lifecycle.Quit: "Quit",
	lifecycle.Begin: "Begin", lifecycle.Pause: "Pause", lifecycle.Resume: "Resume", lifecycle.Commit: "Commit", lifecycle.Fail: "Fail",
	lifecycle.Announce: "Announce", lifecycle.Stop: "Stop", lifecycle.Expire: "Expire", lifecycle.Shutdown: "Shutdown", lifecycle.Close: "Close",
}

func TestNext(t *testing.T) {
	t.Parallel()
	type acts = []lifecycle.Action
	var (
		first     = lifecycle.State{}
		successor = lifecycle.State{Joined: true}
		probation = lifecycle.State{Phase: lifecycle.Probation, Gate: lifecycle.Open, Joined: true}
		left      = lifecycle.State{Phase: lifecycle.Probation, Gate: lifecycle.Shut, Joined: true}
		serving   = lifecycle.State{Phase: lifecycle.Serving, Gate: lifecycle.Open, Owner: true}
		upgrading = lifecycle.State{Phase: lifecycle.Serving, Gate: lifecycle.Open, Owner: true, Upgrading: true}
		paused    = lifecycle.State{Phase: lifecycle.Serving, Gate: lifecycle.Paused, Owner: true, Upgrading: true}
		announced = lifecycle.State{Phase: lifecycle.Serving, Gate: lifecycle.Open, Owner: true, Announced: true}
		prepared  = lifecycle.State{Phase: lifecycle.Stopping, Gate: lifecycle.Shut, Owner: true, Announced: true}
		stopping  = lifecycle.State{Phase: lifecycle.Stopping, Gate: lifecycle.Shut, Owner: true}
		leaving   = lifecycle.State{Phase: lifecycle.Stopping, Gate: lifecycle.Shut, Owner: true, Upgrading: true}
		lingering = lifecycle.State{Phase: lifecycle.Lingering, Gate: lifecycle.Shut}
		refused   = lifecycle.State{Phase: lifecycle.Stopping, Gate: lifecycle.Shut, Joined: true}
		closed    = lifecycle.State{Phase: lifecycle.Closed, Gate: lifecycle.Shut}
		end       = acts{lifecycle.ShutGate, lifecycle.CloseDone, lifecycle.StartLinger}
	)
	for _, tt := range []struct {
		name  string
		from  lifecycle.State
		event lifecycle.Event
		to    lifecycle.State
		acts  []lifecycle.Action
		err   error
	}{
		{"the first of a line serves when its program is ready", first, lifecycle.Ready, serving, acts{lifecycle.OpenGate}, nil},
		{"a successor is not ready by itself", successor, lifecycle.Ready, successor, nil, nil},
		{"a successor accepts in probation", successor, lifecycle.Start, probation, acts{lifecycle.OpenGate}, nil},
		{"a commit makes it the owner", probation, lifecycle.Own, serving, nil, nil},
		{"a successor that has not started can't own", successor, lifecycle.Own, successor, nil, nil},
		{"a successor that is rolled back accepts no more", probation, lifecycle.Leave, left, acts{lifecycle.ShutGate}, nil},
		{"and ends with the conversation", left, lifecycle.Quit, refused, end, nil},
		{"it can't own the sockets then", left, lifecycle.Own, left, nil, nil},
		{"a rollback in probation ends it", probation, lifecycle.Quit, refused, end, nil},
		{"a rollback before Ready ends it", successor, lifecycle.Quit, refused, end, nil},
		{"a second Ready changes nothing", serving, lifecycle.Ready, serving, nil, nil},
		{"Ready after the end fails", stopping, lifecycle.Ready, stopping, nil, failure.Closed},
		{"an owner begins an upgrade", serving, lifecycle.Begin, upgrading, nil, nil},
		{"one upgrade at a time", upgrading, lifecycle.Begin, upgrading, nil, failure.InProgress},
		{"no upgrade before Ready", first, lifecycle.Begin, first, nil, failure.NotReady},
		{"no upgrade in probation", probation, lifecycle.Begin, probation, nil, failure.InProbation},
		{"no upgrade in the end", lingering, lifecycle.Begin, lingering, nil, failure.Closed},
		{"the predecessor pauses", upgrading, lifecycle.Pause, paused, acts{lifecycle.PauseGate}, nil},
		{"and accepts again", paused, lifecycle.Resume, upgrading, acts{lifecycle.OpenGate}, nil},
		{"a failed upgrade leaves it serving", upgrading, lifecycle.Fail, serving, nil, nil},
		{"a commit makes it linger", paused, lifecycle.Commit, lingering, end, nil},
		{"a stop ends the service", serving, lifecycle.Stop, stopping, end, nil},
		{"a stop gives the upgrade up", paused, lifecycle.Stop, leaving, append(acts{lifecycle.GiveUp}, end...), nil},
		{"a stopped process accepts no more", leaving, lifecycle.Resume, leaving, nil, nil},
		{"an upgrade may commit after a stop", leaving, lifecycle.Commit, lingering, nil, nil},
		{"or fail", leaving, lifecycle.Fail, stopping, nil, nil},
		{"a stop waits for the program", serving, lifecycle.Announce, announced, acts{lifecycle.Prepare}, nil},
		{"once", announced, lifecycle.Announce, announced, nil, nil},
		{"no upgrade begins then", announced, lifecycle.Begin, announced, nil, failure.Closed},
		{"and it ends the service", announced, lifecycle.Stop, prepared, end, nil},
		{"a process that does not serve has nothing to wait for", lingering, lifecycle.Announce, lingering, nil, nil},
		{"a successor neither", probation, lifecycle.Announce, probation, nil, nil},
		{"a successor asks its predecessor before it stops", probation, lifecycle.Stop, probation, acts{lifecycle.Abort}, nil},
		{"also before Ready", successor, lifecycle.Stop, successor, acts{lifecycle.Abort}, nil},
		{"a second stop changes nothing", stopping, lifecycle.Stop, stopping, nil, nil},
		{"a stop that comes behind a commit changes nothing", lingering, lifecycle.Stop, lingering, nil, nil},
		{"a closed process stays closed", closed, lifecycle.Stop, closed, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			to, acts, err := tt.from.Next(tt.event)
			if diff := cmp.Diff(tt.to, to); diff != "" {
				t.Errorf("%+v.Next(%s) (-want +got):\n%s", tt.from, events[tt.event], diff)
			}
			if !slices.Equal(acts, tt.acts) || !errors.Is(err, tt.err) {
				t.Errorf("%+v.Next(%s) = %v, %v, want %v, %v", tt.from, events[tt.event], acts, err, tt.acts, tt.err)
			}
		})
	}
}

// TestEveryState visits each state that any order of events leads to, and checks
// what must hold in all of them.
func TestEveryState(t *testing.T) {
	t.Parallel()
	wrong := func(s lifecycle.State) string {
		switch {
		case s.Done() && s.Gate != lifecycle.Shut:
			return "the process is to end and its gate is not shut"
		case !s.Done() && s.Gate == lifecycle.Shut && !s.Joined:
			return "the gate is shut before the end"
		case s.Phase == lifecycle.Probation && (!s.Joined || s.Owner):
			return "in probation the predecessor owns the sockets"
		case s.Phase == lifecycle.Serving && (!s.Owner || s.Joined):
			return "a process that serves owns the sockets"
		case s.Phase == lifecycle.Lingering && s.Owner:
			return "the successor owns the sockets"
		case s.Upgrading && !s.Owner:
			return "an upgrade is under way in a process that owns nothing"
		case s.Gate == lifecycle.Paused && s.Phase == lifecycle.Serving && !s.Upgrading:
			return "it serves and does not accept"
		case s.Announced && s.Phase < lifecycle.Serving:
			return "a stop of a process that does not serve waits for the program"
		case s.Expired && !s.Done():
			return "the linger is over before it has begun"
		}
		return ""
	}
	from := map[lifecycle.State]string{{}: "New"}
	for queue := []lifecycle.State{{}}; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		for e, name := range events {
			if e == lifecycle.Join && (s.Phase != lifecycle.Starting || s.Joined) {
				continue // New joins, once
			}
			if e == lifecycle.Fail && s.Gate == lifecycle.Paused {
				continue // the conversation resumes before it fails, see package session's model
			}
			if e == lifecycle.Close && (!s.Done() || s.Upgrading) {
				continue // Shutdown waits
			}
			to, acts, err := s.Next(e)
			path := from[s] + ", " + name
			if what := wrong(to); what != "" {
				t.Fatalf("%s: %+v: %s", path, to, what)
			}
			if err != nil && to != s {
				t.Errorf("%s: the event is refused (%v) and changes %+v to %+v", path, err, s, to)
			}
			if done := slices.Contains(acts, lifecycle.CloseDone); done != (!s.Done() && to.Done()) && e != lifecycle.Close {
				t.Errorf("%s: Done is closed: %t, in %+v from %+v", path, done, to, s)
			}
			if _, known := from[to]; !known {
				from[to] = path
				queue = append(queue, to)
			}
		}
	}
	phases := make(map[lifecycle.Phase]bool)
	for s := range from {
		phases[s.Phase] = true
	}
	if len(phases) != int(lifecycle.Closed)+1 {
		t.Errorf("%d phases seen: %v", len(phases), fmt.Sprint(phases))
	}
	t.Logf("%d states", len(from))
}
