package handoffprom

import (
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// phase is the time that one phase of an upgrade took.
type phase struct {
	name string
	took time.Duration
}

func phases(d *handoff.Durations) []phase {
	return []phase{
		{"start", d.Start},
		{"transfer", d.Transfer},
		{"warming", d.Warming},
		{"probation", d.Probation},
		{"commit", d.Commit},
		{"linger", d.Linger},
	}
}

// kinds counts sockets by kind.
func kinds(sockets []handoff.SocketStatus) map[string]int {
	n := map[string]int{"listener": 0, "packet": 0, "file": 0}
	for i := range sockets {
		n[sockets[i].Kind]++
	}
	return n
}

// place is what the metrics of a socket are labelled with. Several sockets may
// have the same.
type place struct{ name, network, address string }

// sum is what the listeners of one place have together; negative is unknown.
type sum struct {
	accepted       uint64
	queue, backlog int
}

func sums(sockets []handoff.SocketStatus) map[place]sum {
	all := make(map[place]sum)
	for i := range sockets {
		s := &sockets[i]
		if s.Kind != "listener" {
			continue
		}
		at := place{text(s.Name), text(s.Network), text(s.Address)}
		one, ok := all[at]
		if !ok {
			one.queue, one.backlog = -1, -1
		}
		one.accepted += s.Accepted
		one.queue = plus(one.queue, s.Queue)
		one.backlog = plus(one.backlog, s.Backlog)
		all[at] = one
	}
	return all
}

// plus adds what is known.
func plus(a, b int) int {
	if a < 0 {
		return b
	}
	return a + max(0, b)
}

// halfOpen returns the handshakes on each address: members of a group share
// their number.
func halfOpen(sockets []handoff.SocketStatus) map[place]int {
	all := make(map[place]int)
	for i := range sockets {
		s := &sockets[i]
		if s.HalfOpen < 0 {
			continue
		}
		at := place{network: text(s.Network), address: text(s.Address)}
		all[at] = max(all[at], s.HalfOpen)
	}
	return all
}
