package session

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// checkPart is how many descriptors a goroutine checks: for fewer it is not worth
// waking another processor.
const checkPart = 64

// checks compares descriptors with the manifest while the next ones are in transit:
// it takes several system calls for each, most of the time of a transfer.
type checks struct {
	check func(wire.Socket, int) error
	slots chan struct{}
	wg    sync.WaitGroup

	mu    sync.Mutex
	err   error
	index int // in the manifest, of what err is about
}

func newChecks(check func(wire.Socket, int) error) *checks {
	return &checks{check: check, slots: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))}
}

// add checks items, the first of which has that index in the manifest. It may
// return before that is done, and borrows them until wait.
func (c *checks) add(first int, items []Item) {
	for len(items) > checkPart {
		c.slots <- struct{}{}
		part, at := items[:checkPart], first
		c.wg.Go(func() { // ends with its part; wait waits
			c.run(at, part)
			<-c.slots
		})
		items, first = items[checkPart:], first+checkPart
	}
	c.run(first, items)
}

// run checks items, up to the first that is wrong.
func (c *checks) run(first int, items []Item) {
	for i := range items {
		it := &items[i]
		if it.Inherited {
			continue // checked when the program asks for it
		}
		if err := c.check(it.Socket, it.FD); err != nil {
			c.fail(first+i, &Error{Reason: failure.Transfer, Text: fmt.Sprintf("socket %d (%s %s)", first+i, it.Socket.Network, it.Socket.Address), Err: err})
			return
		}
	}
}

// fail notes an error; the one that comes first in the manifest stands.
func (c *checks) fail(index int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil || index < c.index {
		c.err, c.index = err, index
	}
}

// failed reports whether a check has failed so far.
func (c *checks) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// wait waits for all checks.
func (c *checks) wait() error {
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
