package handoff

import (
	"bytes"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A successor writes its standard error into a pipe until it is committed, so
// that the last lines of one that fails can be told. The predecessor reads the
// pipe and passes on what comes. The successor holds the reading end as well:
// if the predecessor dies, writing does not become SIGPIPE, and what is left in
// the pipe is not lost. At commit the successor puts the real standard error in
// the pipe's place.
//
// In mode Inherit the successor puts the pipe there itself, in New. It can't have
// it from its start: tableflip gives it our descriptor 2, and a plain tableflip
// service, which may be what starts, would keep the pipe for good and be killed by
// SIGPIPE once we are gone. So would one of ours if we died before its New.

const (
	tailLines = 20
	tailBytes = 8 << 10
)

// capture is the predecessor's side.
type capture struct {
	real *os.File      // borrowed: our own standard error
	r, w *os.File      // owned; w is nil once the successor has its own
	done chan struct{} // closed when copy has ended

	mu   sync.Mutex
	tail []byte
}

// newCapture starts to copy what is written to w into real. real is borrowed
// until close.
func newCapture(real *os.File) (*capture, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c := &capture{real: real, r: r, w: w, done: make(chan struct{})}
	go c.copy() // ends when the last writer is gone, or at close, which waits
	return c, nil
}

func (c *capture) copy() {
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
			_, _ = c.real.Write(buf[:n]) // nobody to tell but standard error itself
		}
		if err != nil {
			return
		}
	}
}

// fds borrows the descriptors of message Stderr.
func (c *capture) fds() []int {
	var fds []int
	for _, f := range []*os.File{c.real, c.r, c.w} {
		fd, err := fdx.Number(f)
		if err != nil {
			return nil
		}
		fds = append(fds, fd)
	}
	return fds
}

// passed closes our writing end: from now on the end of the pipe is the end of
// the successor's writing.
func (c *capture) passed() {
	c.mu.Lock()
	w := c.w
	c.w = nil
	c.mu.Unlock()
	if w != nil {
		_ = w.Close() // a pipe
	}
}

// lastWords is the time that is given to what is still in the pipe. Children of
// the successor may hold it open for longer.
const lastWords = 200 * time.Millisecond

// lines returns the last lines. The process has ended, or goes on to write.
func (c *capture) lines() []string {
	c.passed()
	t := time.NewTimer(lastWords)
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

// close ends the copying, when what is in the pipe has been copied, and waits
// for it.
func (c *capture) close() {
	c.passed()
	_ = c.r.SetReadDeadline(time.Now().Add(lastWords)) // a pipe can
	<-c.done
	_ = c.r.Close() // a pipe
}

// redirect is the successor's side.
type redirect struct {
	mu   sync.Mutex
	real *os.File // nil once put back
	r    *os.File
	wg   sync.WaitGroup
}

// newRedirect takes ownership of the three descriptors of message Stderr, and
// puts the pipe in the place of descriptor 2 if it is not there yet.
func newRedirect(fds []int, place bool) (*redirect, error) {
	real, r, w := fds[0], fds[1], fds[2]
	var err error
	if place {
		// Whoever writes to descriptor 2 does not expect EAGAIN.
		err = os.NewSyscallError("fcntl", unix.SetNonblock(w, false))
		if err == nil {
			err = os.NewSyscallError("dup3", unix.Dup3(w, 2, 0))
		}
	}
	_ = fdx.Close(w) // descriptor 2 is our writing end
	if err != nil {
		_ = fdx.Close(real, r)
		return nil, err
	}
	return &redirect{real: os.NewFile(uintptr(real), "stderr"), r: os.NewFile(uintptr(r), "stderr pipe")}, nil
}

// restore puts the real standard error back, once, and passes on what is left
// in the pipe and what children still write into it.
func (d *redirect) restore() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.real == nil {
		return
	}
	fd, err := fdx.Number(d.real)
	if err != nil {
		return
	}
	if err := unix.Dup3(fd, 2, 0); err != nil {
		return // the pipe goes on to work while somebody reads it
	}
	real := d.real
	d.real = nil
	d.wg.Go(func() { // ends with the last writer, or at close
		_, _ = io.Copy(real, d.r) // nobody to tell but standard error itself
		_ = real.Close()          // a copy
	})
}

// close ends the passing on and waits for it.
func (d *redirect) close() {
	if d == nil {
		return
	}
	d.restore()
	_ = d.r.Close() // a pipe
	d.wg.Wait()
}
