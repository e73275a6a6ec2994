package handoff_test

import (
	"sync"
	"sync/atomic"
	"testing"
)

// askers are goroutines that ask a service, one question after the other, until
// stop.
type askers struct {
	tb    testing.TB
	asked *atomic.Int64
	quit  chan struct{}
	wg    *sync.WaitGroup
}

func newAskers(tb testing.TB) askers {
	return askers{tb: tb, asked: new(atomic.Int64), quit: make(chan struct{}), wg: new(sync.WaitGroup)}
}

// run waits until n more questions have been answered.
func (a *askers) run(n int64) {
	a.tb.Helper()
	want := a.asked.Load() + n
	eventually(a.tb, "questions are answered", func() bool { return a.asked.Load() >= want })
}

func (a *askers) stop() {
	select {
	case <-a.quit:
	default:
		close(a.quit)
	}
	a.wg.Wait()
}
