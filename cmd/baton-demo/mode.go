package main

import (
	"strings"

	"github.com/seed-11c92bf9/baton/handoff"
)

// modes are the demo's modes, in order.
func modes() []handoff.Mode {
	return []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain}
}

// overlaps reports whether the next upgrade can begin while predecessors linger.
func overlaps(m handoff.Mode) bool { return m != handoff.Inherit }

func modeNames() string {
	var names []string
	for _, m := range modes() {
		names = append(names, string(m))
	}
	return strings.Join(names, ", ")
}
