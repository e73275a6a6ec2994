package handoffhttp

// maxFills bounds the Reads of one byte for a chunked body.
const maxFills = 4096

// roomLocked returns how many of the n bytes that net/http asks for it gets. While
// connections move, net/http must not read beyond a request: otherwise the connection
// of a client that pipelines its requests never has an empty buffer between two
// requests. So net/http gets a header byte by byte, and of a body no more than its
// length. This works if a Read begins with the header, since the end of the header is
// then known. With such a client that is usually true for one request, and then the
// connection moves. A Read of a body longer than bufio's buffer bypasses the buffer,
// and net/http bounds it.
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

// expect finds the length of the body of the request that begins.
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
