package sockets

import (
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A Source has a socket that another process has passed on.
type Source interface {
	// Open returns the socket that e describes, which the caller owns, or nil if
	// there is none. It is called once at most.
	Open(e *wire.Socket) (Handle, error)
	// Borrow returns the descriptor of the socket that e describes. It stays the
	// Source's, and open until Open or Close.
	Borrow(e *wire.Socket) (int, error)
	// Close closes what was not opened.
	Close() error
}

// A Descriptor is a Source: a descriptor that was received over a socket.
type Descriptor int

// Open makes a handle of the descriptor.
func (d Descriptor) Open(e *wire.Socket) (Handle, error) { return Open(KeyOf(e), int(d)) }

// Borrow returns the descriptor.
func (d Descriptor) Borrow(*wire.Socket) (int, error) { return int(d), nil }

// Close closes the descriptor.
func (d Descriptor) Close() error { return fdx.Close(int(d)) }

// Arrived is a socket that a predecessor has passed on and that the program has
// not asked for yet.
type Arrived struct {
	Entry  wire.Socket
	Source Source
}

// arrivals are the sockets that a predecessor has passed on, in its order.
type arrivals struct {
	all   []*arrival
	byKey map[Key][]*arrival
}

type arrival struct {
	Arrived
	matched bool // a Listen has taken it
	left    bool // the predecessor leaves it: Ready has said so
}

func (l *arrivals) add(all []Arrived) {
	if l.byKey == nil {
		l.byKey = make(map[Key][]*arrival)
	}
	for i := range all {
		a := &arrival{Arrived: all[i]}
		k := KeyOf(&a.Entry)
		l.all = append(l.all, a)
		if !a.Entry.Leaving { // which another one of them replaces
			l.byKey[k] = append(l.byKey[k], a)
		}
	}
}

// same takes the first for which the predecessor's program asked with k.
func (l *arrivals) same(k Key) (Arrived, bool) {
	for q := l.byKey[k]; len(q) > 0; q = l.byKey[k] {
		l.byKey[k] = q[1:]
		if !q[0].matched && !q[0].left {
			q[0].matched = true
			return q[0].Arrived, true
		}
	}
	return Arrived{}, false
}

// similar takes the first of k's name, or else one that is at the place at: the
// predecessor asked for ":8080", say, and we ask for "[::]:8080"; or else one that is
// there under another name. To bind it again would fail.
func (l *arrivals) similar(k Key, at Place, sameAddress bool) (Arrived, bool) {
	for _, match := range []func(e *wire.Socket) bool{
		func(e *wire.Socket) bool {
			return e.Name == k.Name && e.Network == k.Network && k.Name != "" && !(sameAddress && Inet(e))
		},
		func(e *wire.Socket) bool { return e.Name == k.Name && at.Has(e) },
		func(e *wire.Socket) bool { return Inet(e) && at.Has(e) },
	} {
		for _, a := range l.all {
			if !a.matched && !a.left && !a.Entry.Leaving && a.Entry.Kind == k.Kind && match(&a.Entry) {
				a.matched = true
				return a.Arrived, true
			}
		}
	}
	return Arrived{}, false
}

// takeRest takes those that no Listen has taken.
func (l *arrivals) takeRest() []Arrived {
	var rest []Arrived
	for _, a := range l.all {
		if !a.matched {
			rest = append(rest, a.Arrived)
		}
	}
	*l = arrivals{}
	return rest
}

// Inet reports whether e is a TCP or UDP socket.
func Inet(e *wire.Socket) bool {
	if e.Kind != wire.KindListener && e.Kind != wire.KindPacket {
		return false
	}
	switch e.Network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		return true
	}
	return false
}

// Shared returns the program's own listener that is bound where k is, and that leaves no
// room for another one: that has no SO_REUSEPORT. It returns nil if there is none.
func (t *Table) Shared(k Key) *Socket {
	at := PlaceOf(k.Network, k.Address)
	for _, s := range t.All() {
		if k.Kind == s.Entry.Kind && s.Listener != nil && k.Name == s.Entry.Name && at.Has(&s.Entry) && !reusesPort(s.Handle()) {
			return s
		}
	}
	return nil
}
