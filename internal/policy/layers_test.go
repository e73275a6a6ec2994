package policy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// layers are the packages of the library, the lowest layer first. Each has the list
// of those below it that its code imports, tests apart: its arrows.
//
// An import that is not in the list fails, as does an arrow that no code uses any
// more, and one that does not point down. A new package gets a line; a line more in
// a list is a decision. tableflip is here because one package alone may import it.
var layers = []map[string]string{
	{
		tableflip:                 "",
		"internal/fdx":            "",
		"internal/load":           "",
		"internal/netlab":         "",
		"internal/policy":         "",
		"internal/procs":          "",
		"internal/selfsigned":     "",
		"internal/sysfault":       "",
		"internal/terminal":       "",
		"internal/testmain":       "",
		"internal/trust":          "",
		"reuseport/internal/diag": "",
	},
	{
		"internal/sdnotify":    "internal/fdx",
		"internal/testenv":     "internal/testmain",
		"internal/testservice": "internal/procs",
	},
	{
		"internal/fakesystemd":     "internal/fdx internal/testenv",
		"handoff/internal/failure": "",
		"handoff/internal/pidfile": "",
		"handoff/internal/signals": "",
		"handoff/internal/slogger": "",
		"reuseport":                "internal/fdx reuseport/internal/diag",
	},
	{
		"handoff/internal/conns":     "handoff/internal/failure",
		"handoff/internal/fdpass":    "internal/fdx",
		"handoff/internal/lifecycle": "handoff/internal/failure",
		"handoff/internal/spawn":     "handoff/internal/failure internal/fdx internal/procs",
		"handoff/internal/wire":      "handoff/internal/failure",
	},
	{
		"handoff/internal/session": "handoff/internal/failure handoff/internal/fdpass handoff/internal/wire internal/fdx",
		"handoff/internal/sockets": "handoff/internal/failure handoff/internal/wire internal/fdx reuseport",
	},
	{
		"handoff/internal/inherit": `handoff/internal/failure handoff/internal/sockets handoff/internal/wire
			internal/fdx internal/procs ` + tableflip,
		"handoff/internal/operate": `handoff/internal/failure handoff/internal/fdpass handoff/internal/session
			handoff/internal/wire internal/fdx internal/procs internal/trust`,
		"handoff/internal/flows":     "handoff/internal/failure handoff/internal/sockets handoff/internal/wire internal/fdx internal/trust",
		"handoff/internal/stateblob": "handoff/internal/session internal/fdx",
		"handoff/internal/rebind":    "handoff/internal/failure handoff/internal/sockets handoff/internal/wire internal/fdx internal/procs reuseport",
		"handoff/internal/systemd": `handoff/internal/failure handoff/internal/sockets handoff/internal/wire
			internal/fdx internal/sdnotify`,
	},
	{
		"handoff": `
			handoff/internal/conns handoff/internal/failure handoff/internal/fdpass handoff/internal/flows handoff/internal/inherit handoff/internal/lifecycle
			handoff/internal/operate handoff/internal/pidfile handoff/internal/session handoff/internal/signals
			handoff/internal/rebind handoff/internal/slogger handoff/internal/sockets handoff/internal/spawn handoff/internal/stateblob
			handoff/internal/systemd handoff/internal/wire internal/fdx internal/procs reuseport`,
	},
	{
		"handoff/control": `
			handoff handoff/internal/failure handoff/internal/fdpass handoff/internal/operate handoff/internal/session
			handoff/internal/wire internal/fdx internal/procs internal/trust`,
		"handoff/handoffdebug": "handoff",
		"handoff/handofftls":   "handoff",
	},
	{
		"handoff/handoffhttp": "handoff handoff/handofftls handoff/internal/conns handoff/internal/failure reuseport",
	},
	{
		"handoff/handoffhttp/internal/rig": "handoff handoff/handoffhttp internal/load internal/testservice " + tableflip, // of plain services
	},
	{
		"handoff/handoffhttp/internal/soak":    "handoff handoff/handoffhttp/internal/rig",
		"handoff/handoffhttp/internal/tlsmove": "handoff handoff/handoffhttp/internal/rig internal/selfsigned",
	},
}

// tableflip is the engine of mode Inherit.
const tableflip = "github.com/cloudflare/tableflip"

// packageLayers: the library's packages import what layers allows.
func packageLayers(r *repo) []string { return checkLayers(r, layers) }

func checkLayers(r *repo, layers []map[string]string) []string {
	height, arrows := make(map[string]int), make(map[string]map[string]bool) // by package; whether an arrow is used
	var complaints []string
	for i, layer := range layers {
		for pkg, list := range layer {
			if _, twice := height[pkg]; twice {
				complaints = append(complaints, pkg+": is in two layers")
			}
			height[pkg], arrows[pkg] = i, make(map[string]bool)
			for to := range strings.FieldsSeq(list) {
				arrows[pkg][to] = false
			}
		}
	}
	found := make(map[string]bool)
	for _, s := range r.sources {
		room := s.dir()
		if top, _, _ := strings.Cut(room, "/"); s.test() || !slices.Contains([]string{"handoff", "reuseport", "internal"}, top) {
			continue
		}
		if _, ok := height[room]; !ok {
			if !found[room] {
				complaints = append(complaints, room+": is in no layer: give it a line in layers")
			}
			found[room] = true
			continue
		}
		found[room] = true
		for _, path := range s.imports() {
			to, ours := strings.CutPrefix(path, module+"/")
			_, listed := height[to]
			if !ours && !listed {
				continue
			}
			if _, ok := arrows[room][to]; ok {
				arrows[room][to] = true
			} else if missing := room + ": imports " + to + ", which is no arrow of it in layers"; !slices.Contains(complaints, missing) {
				complaints = append(complaints, missing)
			}
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(height)) {
		if !found[pkg] && pkg != tableflip {
			complaints = append(complaints, pkg+": is in layers, and no package")
		}
		for to, used := range arrows[pkg] {
			switch h, ok := height[to]; {
			case !ok:
				complaints = append(complaints, fmt.Sprintf("%s: has an arrow to %s, which is in no layer", pkg, to))
			case h >= height[pkg]:
				complaints = append(complaints, fmt.Sprintf("%s: its arrow to %s does not point down", pkg, to))
			}
			if !used {
				complaints = append(complaints, fmt.Sprintf("%s: has an arrow to %s that no code uses", pkg, to))
			}
		}
	}
	return complaints
}
