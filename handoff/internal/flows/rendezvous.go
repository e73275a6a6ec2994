package flows

import (
	"errors"
	"net"
)

// A rendezvous is where a process that starts anew gets the lanes from one that lingers: a
// listener on an abstract address (unix(7)), which all processes of the UDP address share.
// If the process that served has ended without a successor, one that lingers answers with
// the lanes, and otherwise with nothing.

// errServes says that the address has a process that serves.
var errServes = errors.New("a process that passes sockets on to its successor has it, and serves")

// receive has this process answer at the rendezvous. It takes ownership of ln.
func (s *Set) receive(ln *net.UnixListener, err error) {
	if err != nil {
		s.alone = err.Error()
		return
	}
	s.meet, s.answered = ln, make(chan struct{})
	go s.answer() // ends with ln; dismiss waits for it
}

// dismiss ends what receive has begun.
func (s *Set) dismiss() error {
	if s.meet == nil {
		return nil
	}
	err := s.meet.Close()
	<-s.answered
	return err
}

// orphaned reports whether the process that served has ended, and this one has left the
// address to it.
func (s *Set) orphaned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.offers {
		return false
	}
	now, err := s.t.state()
	if err != nil || now.lane == s.lane || s.t.Shared && now.lane == 0 {
		return false
	}
	taken, err := s.t.taken(now.lane)
	return err == nil && !taken
}
