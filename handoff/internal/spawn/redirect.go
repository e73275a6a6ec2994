package spawn

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A Redirect is the successor's side of its standard error until the commit. A nil one
// does nothing.
//
// The successor has the reading end as well: if the predecessor dies, a write gets no
// SIGPIPE, and Restore passes on what is left in the pipe.
//
// The successor puts the pipe in the place of descriptor 2 itself. In mode Inherit it
// can't have it there from its start: a plain tableflip service, which is what may
// start, would keep it there, and die of SIGPIPE when the predecessor has ended.
type Redirect struct {
	mu       sync.Mutex
	out      *os.File // the standard error that Restore puts back
	r        *os.File
	restored bool
	copies   bool
	copy     sync.WaitGroup
}

// NewRedirect takes ownership of the three descriptors of message Stderr and makes
// the pipe this process's standard error.
func NewRedirect(fds []int) (*Redirect, error) {
	out, r, w := fds[0], fds[1], fds[2]
	err := placePipe(r, w)
	_ = fdx.Close(w) // descriptor 2 is our writing end
	if err != nil {
		_ = fdx.Close(out, r)
		return nil, err
	}
	return &Redirect{out: os.NewFile(uintptr(out), "stderr"), r: os.NewFile(uintptr(r), "stderr pipe")}, nil
}

// Restore puts the standard error of the predecessor in the place of the pipe, once, and
// passes on what is left in the pipe and what children of this process still write into
// it. If the system call fails, the pipe stays, and all of it is passed on: the
// predecessor reads it no more.
func (d *Redirect) Restore() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.restored {
		fd, err := fdx.Number(d.out)
		d.restored = err == nil && replaceStderr(fd) == nil
	}
	if d.copies {
		return
	}
	d.copies = true
	d.copy.Go(func() { // ends with the last writer, or with Close
		_, _ = io.Copy(d.out, d.r) // an error could only be reported to this same file
		_ = d.out.Close()
	})
}

// Close passes on what is in the pipe, ends the passing on, and waits for that.
func (d *Redirect) Close() {
	if d == nil {
		return
	}
	d.Restore()
	_ = d.r.SetReadDeadline(time.Now().Add(drainTime)) // a pipe supports it
	d.copy.Wait()
	_ = d.r.Close()
}
