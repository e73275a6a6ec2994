package spawn

import (
	"bytes"
	"os"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

const (
	tailLines = 20
	tailBytes = 8 << 10
)

// drainTime bounds the wait for what is still in the pipe. Children of the successor
// may keep its writing end open for longer.
const drainTime = 200 * time.Millisecond

// A Capture is the predecessor's side of a successor's standard error: it copies what
// comes out of the pipe to the predecessor's own, and keeps the last lines.
type Capture struct {
	out  *os.File      // borrowed: our standard error
	r, w *os.File      // owned
	done chan struct{} // closed when copy has ended

	mu   sync.Mutex
	tail []byte
}

// NewCapture starts to copy what is written into the pipe to out, which it borrows until
// Close.
func NewCapture(out *os.File) (*Capture, error) {
	r, w, err := newPipe(out)
	if err != nil {
		return nil, err
	}
	c := &Capture{out: out, r: r, w: w, done: make(chan struct{})}
	go c.copy() // ends with the last writer; Close ends it and waits
	return c, nil
}

func (c *Capture) copy() {
	defer close(c.done)
	buf := make([]byte, 4096)
	for {
		n, err := c.r.Read(buf)
		if n > 0 {
			c.mu.Lock()
			c.tail = append(c.tail, buf[:n]...)
			if len(c.tail) > 2*tailBytes {
				c.tail = append(c.tail[:0], c.tail[len(c.tail)-tailBytes:]...)
			}
			c.mu.Unlock()
			_, _ = c.out.Write(buf[:n]) // an error could only be reported to this same file
		}
		if err != nil {
			return
		}
	}
}

// Descriptors borrows the descriptors of message Stderr: our standard error, and both
// ends of the pipe. It returns nil once one of them is closed.
func (c *Capture) Descriptors() []int {
	var fds []int
	for _, f := range []*os.File{c.out, c.r, c.w} {
		fd, err := fdx.Number(f)
		if err != nil {
			return nil
		}
		fds = append(fds, fd)
	}
	return fds
}

// CloseWriter closes our writing end: the pipe ends when the successor's is closed.
func (c *Capture) CloseWriter() { _ = c.w.Close() }

// Tail returns the last lines of a successor that has ended, or is about to.
func (c *Capture) Tail() []string {
	c.CloseWriter()
	t := time.NewTimer(drainTime)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	text := c.tail
	if len(text) > tailBytes {
		text = text[len(text)-tailBytes:]
	}
	var lines []string
	for l := range bytes.SplitSeq(text, []byte("\n")) {
		if len(l) > 0 {
			lines = append(lines, string(l))
		}
	}
	return lines[max(0, len(lines)-tailLines):]
}

// Close copies what is in the pipe, ends the copying, and waits for that.
func (c *Capture) Close() {
	c.CloseWriter()
	_ = c.r.SetReadDeadline(time.Now().Add(drainTime)) // a pipe supports it
	<-c.done
	_ = c.r.Close()
}
