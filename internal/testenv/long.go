package testenv

import "testing"

// Long skips the test, or the row of a table that calls it, in a run with
// go test -short, which is what make test does. quick names the test that shows
// the same promise there: TestName for one of the same folder, else with the
// folder in front, as in "handoff.TestName". internal/policy looks for it.
func Long(tb testing.TB, quick string) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("-short: make test-all runs it; the quick one is " + quick)
	}
}

// Times returns how often to do something: short in a run with go test -short,
// else all.
func Times(short, all int) int {
	if testing.Short() {
		return short
	}
	return all
}
