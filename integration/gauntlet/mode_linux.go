package main

import (
	"strings"

	"github.com/seed-11c92bf9/baton/handoff"
)

func modeNames() string {
	var names []string
	for _, m := range modes() {
		names = append(names, string(m))
	}
	return strings.Join(names, ",")
}

// byHand reports whether a successor in a mode need not be the predecessor's child.
func byHand(m handoff.Mode) bool { return m != handoff.Inherit }
