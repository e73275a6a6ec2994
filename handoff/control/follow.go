package control

import (
	"context"
	"errors"
	"sync"

	"github.com/seed-11c92bf9/baton/handoff"
)

// maxFollowed bounds the processes of a line that are followed at once: those
// that linger and the one that serves.
const maxFollowed = 64

// Follow calls each with the last events of the process that serves, and then with each
// new event of this process and of all its successors, one at a time. The events of one
// process come in order; those of a predecessor that lingers come between those of its
// successor. Follow returns nil when the last process of the line has ended, or the first
// error of each or of a connection.
func (c *Client) Follow(ctx context.Context, each func(handoff.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type delivery struct {
		event  handoff.Event
		result chan<- error // of each
	}
	all := make(chan delivery)
	ends := make(chan error, maxFollowed)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // before the wait
	watch := func(first bool) {
		wg.Go(func() { // ends with the process, or with ctx
			err := c.events(ctx, true, func(e handoff.Event) error {
				result := make(chan error, 1)
				select {
				case all <- delivery{e, result}:
					return <-result
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if !first && (errors.Is(err, ErrNoServer) || errors.Is(err, ErrStale)) {
				err = nil // the successor ended before we dialled
			}
			ends <- err
		})
	}
	watch(true)
	seen := map[int]bool{} // processes, by ID
	for watching := 1; watching > 0; {
		select {
		case n := <-all:
			e := n.event
			seen[e.PID] = true
			err := each(e)
			n.result <- err
			if err != nil {
				return err
			}
			if e.Kind == handoff.EventCommitted && e.Report != nil && !seen[e.Report.Successor.PID] && watching < maxFollowed {
				seen[e.Report.Successor.PID] = true
				watching++
				watch(false) // the successor answers at the socket from now on
			}
		case err := <-ends:
			watching--
			if err != nil {
				return err
			}
		}
	}
	return nil
}
