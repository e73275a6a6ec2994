package handoff

import (
	"context"
	"errors"
	"fmt"
)

// ReadyAccepting is [Upgrader.Ready] for a server that does not say when it serves: it
// first waits until Accept was called on each listener that the program has opened, those
// that it opens meanwhile included. Accept itself waits for Ready. A program without
// listeners is ready at once; ReadyAccepting does not wait for datagram sockets.
//
// If ctx ends first, ReadyAccepting returns its error with the address of a listener that
// waits for Accept, and the process is not ready. It returns [ErrClosed] if the process is
// to end.
func (u *Upgrader) ReadyAccepting(ctx context.Context) error {
	for {
		waits := false
		for _, s := range u.table.All() {
			if s.Listener == nil {
				continue
			}
			select {
			case <-s.Listener.Accepting():
				continue
			default:
			}
			waits = true
			select {
			case <-s.Listener.Accepting():
			case <-s.Gone():
			case <-u.done:
				return errors.Join(ErrClosed, u.Err())
			case <-ctx.Done():
				return fmt.Errorf("handoff: not ready: the server has not called Accept on %s %s: %w", s.Entry.Network, s.Listener.Addr(), context.Cause(ctx))
			}
		}
		if !waits {
			return u.Ready()
		}
	}
}
