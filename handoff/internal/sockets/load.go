package sockets

import (
	"net"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// Unknown is a count that the kernel does not tell, or for which it would have to
// be asked too often.
const Unknown = -1

// A Load is what waits at a socket; each count can be Unknown.
type Load struct {
	Socket   *Socket
	Queue    int // connections in the accept queue
	Backlog  int // its limit
	HalfOpen int // handshakes under way on the address, the same for each member of a group
}

// maxCounted bounds the questions to the kernel, which a pause asks while no
// process accepts: a dump for each unix listener, and one for each TCP address.
const maxCounted = 64

// Loads returns what waits at each socket in use. Callers that come at once share the
// slice, which they must not change.
func (t *Table) Loads() []Load { return t.loads.get(t.countLoads) }

func (t *Table) countLoads() []Load {
	var all []Load
	halfOpen := make(map[string]int) // by address
	dumps := 0
	for _, s := range t.All() {
		l := Load{s, Unknown, Unknown, Unknown}
		if s.Listener != nil {
			_, tcp := s.Listener.Addr().(*net.TCPAddr)
			if !tcp {
				dumps++
			}
			if tcp || dumps <= maxCounted {
				if n, backlog, err := reuseport.QueueLen(s.Listener); err == nil {
					l.Queue, l.Backlog = n, backlog
				}
			}
			if n, known := halfOpen[s.Entry.Bound]; known {
				l.HalfOpen = n
			} else if tcp && len(halfOpen) < maxCounted {
				if n, err := reuseport.HalfOpen(s.Listener); err == nil {
					l.HalfOpen = n
				}
				halfOpen[s.Entry.Bound] = l.HalfOpen
			}
		}
		all = append(all, l)
	}
	return all
}

// Backlog returns how many connections wait in the accept queues of all
// listeners, and how many handshakes are under way; each can be Unknown.
func (t *Table) Backlog() (queue, halfOpen int) {
	addresses := make(map[string]bool)
	for _, l := range t.countLoads() { // no pause waits for a reader of the status
		if l.Socket.Listener == nil {
			continue
		}
		queue = sum(queue, l.Queue)
		if bound := l.Socket.Entry.Bound; !addresses[bound] && l.Socket.Listener.Addr().Network() == "tcp" {
			addresses[bound] = true
			halfOpen = sum(halfOpen, l.HalfOpen)
		}
	}
	return queue, halfOpen
}

// sum is Unknown if one of the two is.
func sum(a, b int) int {
	if a == Unknown || b == Unknown {
		return Unknown
	}
	return a + b
}
