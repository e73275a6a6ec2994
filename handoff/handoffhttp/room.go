package handoffhttp

// maxFills bounds the Reads of one byte for a chunked body.
const maxFills = 4096

// roomLocked returns how much of the n bytes for which net/http asks it gets.
// While connections move it shall not read beyond a request, or a client that
// sends its requests in a pipeline never leaves it with an empty buffer, between
// two of them. So it gets a header byte by byte, and of the body no more than
// there is of it: of a header of which a Read has to be made in this state it is
// known where it ends. That is the case for one request of such a client, most
// often; then it moves. A Read of a body that is longer than bufio's buffer goes
// past that, and net/http bounds it.
func (c *conn) roomLocked(n int) int {
	if c.waiting || c.bound || n <= 1 || c.l == nil || !c.l.taken.Load() {
		return n
	}
	switch c.phase {
	case phaseNew, phaseIdle:
		c.exact = true
		return 1
	case phaseActive:
		switch {
		case c.left > 0:
			return int(min(int64(n), c.left))
		case c.fills > 0 && n <= c.srv.facts.buffer:
			c.fills--
			return 1
		}
	}
	return n
}

// expect tells how long the body of the request is that begins.
func (c *conn) expect(length int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.exact:
	case length > 0:
		c.left = length
	case length < 0:
		c.fills = maxFills
	}
}
