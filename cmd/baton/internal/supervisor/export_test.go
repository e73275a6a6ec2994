package supervisor

import "time"

// Pauses returns the pauses before n restarts in a row.
func Pauses(c *Config, random float64, n int) []time.Duration {
	b := backoff{first: c.RestartDelay, most: c.RestartMaxDelay, limit: c.RestartLimit}
	var all []time.Duration
	for range n {
		d, ok := b.next(random)
		if !ok {
			break
		}
		all = append(all, d)
	}
	return all
}
