package main

import (
	"context"
	"slices"

	"github.com/seed-11c92bf9/baton/handoff"
)

// begin has the round begin here: what an earlier upgrade of the same process has
// said is no part of it.
func (rd *round) begin() {
	rd.learn()
	rd.first = rd.count()
}

// whileRolledBack upgrades again as soon as the first upgrade has failed. It happened if the
// successor of that one was there when the second upgrade began: it serves its connections.
func whileRolledBack(ctx context.Context, rd *round) (bool, error) {
	said := func(ms []message, kind handoff.EventKind) bool {
		return slices.ContainsFunc(ms, func(m message) bool { return m.PID == rd.pred && m.Kind == string(kind) })
	}
	if err := rd.until(ctx, rd.first, rd.over); err != nil {
		return false, err
	}
	if !said(rd.received(rd.first), handoff.EventUpgradeFailed) {
		return false, nil // the successor was too late
	}
	first := rd.pid(ctx, successor)
	rd.begin()
	if err := rd.trigger(); err != nil {
		return false, err
	}
	there := false
	err := rd.until(ctx, rd.first, func(ms []message) bool {
		if !said(ms, handoff.EventUpgradeStarted) {
			return false
		}
		there = first != 0 && running(first)
		return true
	})
	return there, err
}
