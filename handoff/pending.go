package handoff

import (
	"fmt"
	"sync"
	"time"
)

// visits counts the addresses at which another process's members are served.
type visits struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed while there is none
}

func newVisits() *visits {
	v := &visits{none: make(chan struct{})}
	close(v.none)
	return v
}

func (v *visits) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.n++; v.n == 1 {
		v.none = make(chan struct{})
	}
}

func (v *visits) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.n--; v.n == 0 {
		close(v.none)
	}
}

// settled waits until there is none, for a moment.
func (v *visits) settled(patience time.Duration) error {
	v.mu.Lock()
	none := v.none
	v.mu.Unlock()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-none:
		return nil
	case <-t.C:
		return fmt.Errorf("%w: the sockets of the process before are not drained yet", ErrInProgress)
	}
}
