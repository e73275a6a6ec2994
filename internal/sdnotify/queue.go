package sdnotify

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A Queue sends messages in order, from a goroutine of its own, and calls functions
// between them. While systemd's socket is full, the first message is sent again and
// again, and everything behind it waits.
//
// Its methods may be called from several goroutines. A nil Queue sends nothing and
// calls each function at once.
type Queue struct {
	notifier *Notifier
	failed   func(Message, error)
	done     chan struct{} // closed when the goroutine has ended
	unsent   Message       // the one given up, valid when done is closed
	full     atomic.Bool   // the socket was full at the last try

	mu      sync.Mutex
	changed sync.Cond
	entries []entry
	started bool // the goroutine sends
	closed  bool // the goroutine ends when the queue is empty
	hurried bool // the goroutine ends when the socket is full
}

// entry is a message or a function.
type entry struct {
	m Message
	f func()
}

// NewQueue returns a queue to n, or nil where n is nil. It sends nothing before
// [Queue.Start]. The queue calls failed when a message does not get through: once
// for each message that has to wait, and once for each that is lost.
func NewQueue(n *Notifier, failed func(Message, error)) *Queue {
	if n == nil {
		return nil
	}
	q := &Queue{notifier: n, failed: failed, done: make(chan struct{})}
	q.changed.L = &q.mu
	go q.run() // ends with Close, which waits for it
	return q
}

// set changes what mu guards.
func (q *Queue) set(f func()) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
	q.changed.Signal()
}

// Start begins to send: the messages first, then what the queue has already.
func (q *Queue) Start(first ...Message) {
	q.set(func() {
		var ahead []entry
		for _, m := range first {
			ahead = append(ahead, entry{m: m})
		}
		q.entries = append(ahead, q.entries...)
		q.started = true
	})
}

// Send appends a message.
func (q *Queue) Send(m Message) {
	q.set(func() { q.entries = append(q.entries, entry{m: m}) })
}

// Do has the queue call f when everything before it is sent.
func (q *Queue) Do(f func()) {
	if q == nil {
		f()
	}
	q.set(func() { q.entries = append(q.entries, entry{f: f}) })
}

// Pulse sends a message that is worth nothing later: at once, before everything
// that waits, or not at all while the socket is full.
func (q *Queue) Pulse(m Message) {
	if q == nil || q.full.Load() {
		return
	}
	if err := q.notifier.Send(m); err != nil {
		q.failed(m, err)
	}
}

// Close ends the queue when it is empty. After a time it starts a queue that was
// not started, and gives up at the next message that finds the socket full, which
// it returns. The caller calls it once.
func (q *Queue) Close(after time.Duration) Message {
	if q == nil {
		return nil
	}
	q.set(func() { q.closed = true })
	hurry := time.AfterFunc(after, func() { q.set(func() { q.started, q.hurried = true, true }) })
	defer hurry.Stop()
	<-q.done
	return q.unsent
}

func (q *Queue) run() {
	defer close(q.done)
	for {
		e, ok := q.next()
		switch {
		case !ok:
			return
		case e.f != nil:
			e.f()
		case !q.deliver(e.m):
			q.unsent = e.m
			return
		}
	}
}

// next waits for an entry and takes it out. It reports false if none will follow.
func (q *Queue) next() (e entry, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.started || len(q.entries) == 0 {
		if q.closed && len(q.entries) == 0 {
			return entry{}, false
		}
		q.changed.Wait()
	}
	e, q.entries = q.entries[0], q.entries[1:]
	return e, true
}

// deliver sends a message. It reports false if it has given up because of a full
// socket.
func (q *Queue) deliver(m Message) bool {
	for waits := false; ; waits = true {
		err := q.notifier.Send(m)
		full := errors.Is(err, os.ErrDeadlineExceeded)
		q.full.Store(full)
		if err != nil && !(full && waits) {
			q.failed(m, err)
		}
		q.mu.Lock()
		hurried := q.hurried
		q.mu.Unlock()
		if !full || hurried {
			return !full
		}
	}
}
