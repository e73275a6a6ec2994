package supervisor

import "time"

// backoff counts restarts and says how long to wait before the next one.
type backoff struct {
	first, most time.Duration
	limit       int // 0: none
	tries       int
}

// next returns the pause before the next restart, and whether there is to be one.
// random is at least 0 and below 1: without it, a hundred containers that have
// lost their database at once would come back to it at once.
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

// reset begins anew.
func (b *backoff) reset() { b.tries = 0 }
