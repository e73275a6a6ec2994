package main

import (
	"context"
	"fmt"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// A fault is injected into an upgrade.
type fault struct {
	name  string
	needs need
	// plan is what the successor does wrong; zero means nothing.
	plan plan
	// do does harm in the course of an upgrade, and reports whether it happened.
	// nil where the plan is all: that has happened if the successor says so.
	do func(ctx context.Context, rd *round) (happened bool, err error)
	// wrapped says that the successor starts below a shell, which does not exec.
	wrapped bool
	// triggers says that do triggers the upgrade itself.
	triggers bool
	// fate is the required result of the upgrade.
	fate fate
}

// need is what a fault needs.
type need int

const (
	needLink     need = 1 << iota // root, and a namespace
	needDisk                      // a file system for the state that may be full
	needClock                     // a clock that no other program uses
	needPatience                  // it takes seconds
	needHand                      // a mode in which the driver may start successors
	needCalls                     // a predecessor whose system calls can fail
)

// fate is the allowed result of an upgrade.
type fate int

const (
	mayEither   fate = iota // committed or not: nothing is lost
	mustCommit              // the successor serves
	mustFail                // the predecessor serves, and nothing is left of the successor
	byTheTable              // a process is killed: see the table of deaths
	successorIs             // the predecessor hangs for good: the successor serves
	mayStop                 // a process gets a stop signal: committed or not, and the service may have ended
)

// steps are the steps of an upgrade, as the predecessor reports them.
func steps() []handoff.EventKind {
	return []handoff.EventKind{
		handoff.EventUpgradeStarted, handoff.EventTransfer, handoff.EventWarming,
		handoff.EventPaused, handoff.EventCommitting, handoff.EventCommitted,
	}
}

// role is a side of an upgrade.
type role string

const (
	predecessor role = "predecessor"
	successor   role = "successor"
)

// faults are all of them.
func faults() []fault {
	var all []fault
	for _, who := range []role{predecessor, successor} {
		for _, step := range steps() {
			all = append(all,
				fault{name: fmt.Sprintf("kill %s, %s", who, step), do: kill(who, step), fate: byTheTable},
				fault{name: fmt.Sprintf("stop %s, %s", who, step), do: stop(who, step, 300*time.Millisecond)})
		}
	}
	all = append(all,
		fault{name: "stop predecessor for long, paused", needs: needPatience, do: stopUntil(predecessor, handoff.EventPaused), fate: successorIs},
		fault{name: "stop successor for long, warming", needs: needPatience, do: stopUntil(successor, handoff.EventWarming), fate: mustFail},
		fault{name: "stop successor for long, paused", needs: needPatience, do: stopUntil(successor, handoff.EventPaused), fate: mustFail})
	for _, at := range []string{atStart, atJoined, atListening, atProbation} {
		for _, how := range []string{howExit0, howExit1, howPanic, howEat, howHang, howAbort} {
			f := fault{name: "successor: " + how + ", " + at, plan: plan{At: at, How: how}, fate: mustFail}
			switch {
			case how == howHang && at == atProbation:
				continue // the program's own goroutines, not Baton's: nothing sees it
			case how == howAbort && at == atStart:
				continue // it can't yet
			case how == howHang:
				f.needs = needPatience
			case at == atProbation && how == howAbort:
				f.fate = mayEither // it may come too late
			case at == atProbation:
				f.fate = byTheTable
			}
			all = append(all, f)
		}
	}
	for _, at := range []string{atStart, atJoined} {
		all = append(all, fault{name: "successor: " + howNoFile + ", " + at, plan: plan{At: at, How: howNoFile}})
	}
	for _, step := range steps() {
		all = append(all,
			fault{name: fmt.Sprintf("hostile peer, %s", step), do: hostile(step), fate: mustCommit},
			fault{name: fmt.Sprintf("other user's dial, %s", step), needs: needLink, do: otherUser(step), fate: mustCommit},
			fault{name: fmt.Sprintf("second successor, %s", step), do: second(step)},
			fault{name: fmt.Sprintf("clock step, %s", step), needs: needClock, do: stepClock(step), fate: mustCommit},
			fault{name: fmt.Sprintf("SIGUSR2 again, %s", step), do: again(predecessor, step)},
			fault{name: fmt.Sprintf("SIGUSR2 to the successor, %s", step), do: again(successor, step)},
			fault{name: fmt.Sprintf("SIGTERM to the successor, %s", step), do: terminate(successor, step), fate: mayStop})
		if step != handoff.EventCommitted { // a predecessor that lingers would cut what it has: its operator's will
			all = append(all, fault{name: fmt.Sprintf("SIGTERM, %s", step), do: terminate(predecessor, step), fate: mayStop})
		}
	}
	return append(append(all, upgradeFaults()...),
		fault{name: "successor: unhealthy", plan: plan{How: howUnhealthy}, fate: mustFail},
		fault{name: "predecessor: no descriptors", do: noFile, triggers: true},
		fault{name: "full disk", needs: needDisk, do: fullDisk, triggers: true, fate: mustFail},
	)
}

// upgradeFaults are those of what an upgrade goes through: system calls, wrappers, the
// control socket, another service, and a successor that was rolled back.
func upgradeFaults() []fault {
	var all []fault
	for _, step := range steps() {
		for _, who := range []role{predecessor, successor} {
			all = append(all, fault{name: fmt.Sprintf("system call of %s fails, %s", who, step), needs: needCalls, do: failAt(who, step)})
		}
		all = append(all,
			fault{name: fmt.Sprintf("wrapped successor: kill wrapper, %s", step), wrapped: true, do: killWrapper(step)},
			fault{name: fmt.Sprintf("wrapped successor: kill, %s", step), wrapped: true, do: kill(successor, step), fate: byTheTable},
			fault{name: fmt.Sprintf("swept control socket, %s", step), do: sweepAt(step), fate: mustCommit},
			fault{name: fmt.Sprintf("other service, %s", step), do: otherAt(step), fate: mustCommit})
	}
	for _, at := range []string{atStart, atJoined, atListening} {
		all = append(all, fault{name: "wrapped successor: " + howHang + ", " + at, wrapped: true, needs: needPatience, plan: plan{At: at, How: howHang}, fate: mustFail})
	}
	return append(all,
		fault{name: "wrapped successor", wrapped: true, fate: mustCommit},
		fault{name: "wrapped successor: stop for long, paused", wrapped: true, needs: needPatience, do: stopUntil(successor, handoff.EventPaused), fate: mustFail},
		fault{name: "swept control socket, before", do: sweepBefore(false), triggers: true, fate: mustCommit},
		fault{name: "swept control socket, by hand", needs: needHand, do: sweepBefore(true), triggers: true, fate: mustCommit},
		fault{name: "other service, before", do: otherBefore, triggers: true, fate: mustCommit},
		fault{name: "upgrade while a rolled-back successor serves", plan: plan{At: atProbation, How: howAbort, Wait: defaultProbation}, do: whileRolledBack, fate: mustCommit},
	)
}
