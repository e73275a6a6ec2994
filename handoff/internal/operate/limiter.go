package operate

import (
	"sync"
	"time"
)

const (
	maxWarnings   = 10          // in each warningPeriod
	warningPeriod = time.Minute // from the first warning on
)

// A limiter bounds how often something is logged. The zero value is ready.
type limiter struct {
	mu    sync.Mutex
	since time.Time // the begin of the period
	n     int       // in the period
	left  int       // left out since the last one that was not
}

// take reports whether one more may be logged now, and how many were left out before it.
func (l *limiter) take(now time.Time) (left int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= warningPeriod {
		l.since, l.n = now, 0
	}
	if l.n++; l.n > maxWarnings {
		l.left++
		return 0, false
	}
	left, l.left = l.left, 0
	return left, true
}
