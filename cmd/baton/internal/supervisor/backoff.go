package supervisor

import "time"

// backoff counts restarts and says how long to wait before the next one.
type backoff struct {
	first, most time.Duration
	limit       int // 0: none
	tries       int
}

// next returns the pause before the next restart, and whether a restart is allowed.
// random is in [0, 1): it spreads the restarts of containers that lost the same
// database at the same moment.
func (b *backoff) next(random float64) (time.Duration, bool) {
	if b.limit > 0 && b.tries >= b.limit {
		return 0, false
	}
	d := b.first
	for range b.tries {
		if d >= b.most/2 {
			d = b.most
			break
		}
		d *= 2
	}
	b.tries++
	return d - time.Duration(random*float64(d)/2), true
}

// reset restores the first delay and the full number of tries.
func (b *backoff) reset() { b.tries = 0 }
