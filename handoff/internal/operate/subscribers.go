package operate

import (
	"errors"
	"math"
	"sync"
)

const (
	maxQueued = 1024 // events that wait for a tool
	maxKept   = 64   // events that are kept for later subscribers
)

// An Event is what the process publishes.
type Event struct {
	Value  any  // what subscribers get; it marshals to JSON
	Starts bool // it is the first of an upgrade
	Last   bool // it is the last of the process
}

// Subscribers get the events of the process, in order, each at its own pace. The
// zero value has none.
type Subscribers struct {
	mu   sync.Mutex
	all  map[*Subscriber]struct{}
	kept []Event
}

// A Subscriber is one of the Subscribers.
type Subscriber struct {
	of    *Subscribers
	limit int
	wake  chan struct{} // capacity 1

	mu    sync.Mutex
	queue []Event
	lost  bool // an event did not fit
}

// errLost says that a subscriber is too slow.
var errLost = errors.New("events were lost: read them faster")

// Publish queues e for each subscriber. It does not block.
func (s *Subscribers) Publish(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, e)
	s.kept = s.kept[max(0, len(s.kept)-maxKept):]
	for one := range s.all {
		one.add(e)
	}
}

// Subscribe returns a subscriber to the events from now on. It loses none.
func (s *Subscribers) Subscribe() *Subscriber { return s.subscribe(math.MaxInt, false) }

// subscribe returns a subscriber in whose queue at most limit events wait. past
// gives it the events first that are kept.
func (s *Subscribers) subscribe(limit int, past bool) *Subscriber {
	one := &Subscriber{of: s, limit: limit, wake: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*Subscriber]struct{})
	}
	s.all[one] = struct{}{}
	if past {
		for _, e := range s.kept {
			one.add(e)
		}
	}
	return one
}

// add queues e, or notes that it does not fit.
func (s *Subscriber) add(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= s.limit {
		s.lost = true
		return
	}
	s.queue = append(s.queue, e)
	select {
	case s.wake <- struct{}{}:
	default: // it is awake already
	}
}

// take returns the events since the last call, or an error if some were lost.
// There are more when wake yields.
func (s *Subscriber) take() ([]Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return nil, errLost
	}
	events := s.queue
	s.queue = nil
	return events, nil
}

// Each calls f with each event up to the last one of the process, and ends the
// subscription.
func (s *Subscriber) Each(f func(Event)) {
	defer s.close()
	for {
		events, err := s.take()
		if err != nil {
			return // a subscriber of Subscribe loses none
		}
		for _, e := range events {
			f(e)
			if e.Last {
				return
			}
		}
		<-s.wake
	}
}

func (s *Subscriber) close() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	delete(s.of.all, s)
}
