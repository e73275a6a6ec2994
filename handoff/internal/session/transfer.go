package session

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// Item is one entry of the manifest with its descriptor.
type Item struct {
	Socket    wire.Socket
	FD        int
	Inherited bool // the successor has inherited the descriptor; FD is not set
}

// Blob is a state blob: a sealed file.
type Blob struct {
	Name string
	Size uint64
	File *os.File
}

const (
	// batch is the number of descriptors that Linux takes in one message
	// (SCM_MAX_FD, unix(7)).
	batch = 253
	// window is the number of batches that may be under way. Descriptors in
	// flight count against the sender's RLIMIT_NOFILE, so it is small.
	window = 2
)

// transfer sends descriptors in acknowledged batches.
type transfer struct {
	conv     *conversation
	hang     time.Duration
	deadline <-chan time.Time
	cancel   <-chan *Error
	seq      uint32
	pending  int // batches without acknowledgement
}

// sockets sends the manifest and its descriptors.
func (t *transfer) sockets(items []Item) error {
	fds := make([]int, 0, min(len(items), batch))
	for first := 0; first < len(items); first += batch {
		part := items[first:min(first+batch, len(items))]
		m := &wire.Sockets{First: uint32(first), Entries: make([]wire.Socket, len(part))}
		fds = fds[:0]
		for i, it := range part {
			m.Entries[i] = it.Socket
			if !it.Inherited {
				fds = append(fds, it.FD)
			}
		}
		t.seq++
		m.Seq = t.seq
		if err := t.send(m, fds); err != nil {
			return fmt.Errorf("pass sockets: %w", err)
		}
	}
	return t.settle(0)
}

// states sends the state blobs.
func (t *transfer) states(blobs []Blob) error {
	for first := 0; first < len(blobs); first += batch {
		part := blobs[first:min(first+batch, len(blobs))]
		m := &wire.States{}
		fds := make([]int, 0, len(part))
		for _, b := range part {
			fd, err := fdx.Number(b.File)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
			m.Entries = append(m.Entries, wire.State{Name: b.Name, Size: b.Size})
		}
		t.seq++
		m.Seq = t.seq
		if err := t.send(m, fds); err != nil {
			return fmt.Errorf("pass state: %w", err)
		}
	}
	return t.settle(0)
}

// send sends one batch once there is room in the window.
func (t *transfer) send(m wire.Message, fds []int) error {
	if err := t.settle(window - 1); err != nil {
		return err
	}
	if err := wire.Check(m); err != nil {
		return err // the successor would count it as a protocol error
	}
	for {
		err := t.conv.link.Send(m, fds)
		switch {
		case err == nil:
			t.pending++
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &Error{Reason: failure.Hung, Text: "no acknowledgement", Err: err}
		case errors.Is(err, syscall.ETOOMANYREFS) && t.pending > 0:
			if err := t.settle(t.pending - 1); err != nil {
				return err
			}
		case errors.Is(err, syscall.ETOOMANYREFS):
			return fmt.Errorf("too many descriptors in flight for this user (unix(7), ETOOMANYREFS): raise RLIMIT_NOFILE: %w", err)
		default:
			if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
				t.pending++ // it has ended: its last message, or its end, says more
			}
			if e := t.settle(0); e != nil {
				return e
			}
			return err
		}
	}
}

// settle waits until at most n batches are without acknowledgement.
func (t *transfer) settle(n int) error {
	for t.pending > n {
		if err := t.acknowledged(); err != nil {
			return err
		}
		t.pending--
	}
	return nil
}

// acknowledged waits for one acknowledgement.
func (t *transfer) acknowledged() error {
	quiet := newSilence(t.hang)
	defer quiet.stop()
	for {
		select {
		case in, ok := <-t.conv.inbox:
			if !ok {
				return &Error{Reason: failure.SuccessorDied}
			}
			if in.err != nil {
				return in.err
			}
			_ = fdx.Close(in.fds...) // a successor sends none
			switch m := in.msg.(type) {
			case *wire.Ack:
				return nil
			case *wire.Abort:
				return &Error{Reason: failure.Aborted, Text: m.Text}
			default:
				return &Error{Reason: failure.Protocol, Text: fmt.Sprintf("%T instead of an acknowledgement", m)}
			}
		case e := <-t.cancel:
			return e
		case <-t.deadline:
			return &Error{Reason: failure.Timeout}
		case <-quiet.ticker.C:
			if quiet.tick() {
				return &Error{Reason: failure.Hung, Text: fmt.Sprintf("no acknowledgement within %v", t.hang)}
			}
		}
	}
}
