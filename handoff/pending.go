package handoff

import (
	"context"
	"sync"
	"time"
)

// pending counts work that is under way.
type pending struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed while there is none
}

func newPending() *pending {
	p := &pending{none: make(chan struct{})}
	close(p.none)
	return p
}

func (p *pending) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n++; p.n == 1 {
		p.none = make(chan struct{})
	}
}

func (p *pending) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n--; p.n == 0 {
		close(p.none)
	}
}

// over returns a channel that is closed when all of it is over.
func (p *pending) over() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.none
}

// await waits until all of it is over, for a moment, and not longer than ctx. It
// reports whether it is.
func (p *pending) await(ctx context.Context, patience time.Duration) bool {
	over := p.over()
	select {
	case <-over: // whatever ctx says
		return true
	default:
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-over:
		return true
	case <-t.C:
		return false
	case <-ctx.Done():
		return false
	}
}
