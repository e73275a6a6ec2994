package session

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// Received is what a predecessor has passed on. It owns the descriptors.
type Received struct {
	Welcome wire.Welcome
	Sockets []Item
	States  []Blob
	// Stderr are the three descriptors of message Stderr, or nil.
	Stderr []int
	// Process is the predecessor's pidfd, or nil.
	Process []int
}

// Close closes all descriptors.
func (r *Received) Close() {
	for _, it := range r.Sockets {
		if !it.Inherited {
			_ = fdx.Close(it.FD) // a copy; the predecessor has its own
		}
	}
	for _, b := range r.States {
		_ = b.File.Close()
	}
	_ = fdx.Close(append(r.Stderr, r.Process...)...)
	r.Sockets, r.States, r.Stderr, r.Process = nil, nil, nil, nil
}

// maxAtOnce bounds the memory that a count alone can claim.
const maxAtOnce = 16 << 10

// maxCount bounds what a predecessor can announce: no process has so many
// descriptors, and the sum of two fits into an int of 32 bits.
const maxCount = 1 << 29

// Stopped is the error of a join that a signal has ended.
type Stopped struct{ Signal os.Signal }

func (s *Stopped) Error() string { return "signal " + s.Signal.String() }

// Joiner is the successor's side from Hello to Verified.
type Joiner struct {
	Hello wire.Hello
	// Check compares a descriptor with its entry in the manifest. It is called from
	// several goroutines at once. Required.
	Check func(wire.Socket, int) error
	// Expect is called with the number of descriptors before they arrive.
	Expect func(n int) error
	// Meanwhile does what needs no answer, once Hello is on its way and before any
	// answer is read. An error ends the join, and so does a signal from the channel
	// that it returns: with [Stopped]. It may be nil.
	Meanwhile func() (<-chan os.Signal, error)
	// Welcomed is called when the predecessor has answered, which has identified this
	// process by then. It may be nil.
	Welcomed func()
	// Timeout bounds the time without any progress.
	Timeout time.Duration
	// StateTimeout bounds the time in which the predecessor writes its state;
	// zero means Timeout.
	StateTimeout time.Duration

	stop  <-chan os.Signal
	quiet *silence
}

// Join sends Hello on link and returns what the predecessor passes on. Its errors are
// *Error; then link is closed and nothing is kept.
func (j *Joiner) Join(link Link) (*Received, *Successor, error) {
	conv := converse(link)
	r := &Received{}
	j.quiet = newSilence(j.Timeout)
	defer j.quiet.stop()
	if err := j.receive(conv, r); err != nil {
		// Say why, if the predecessor still reads: it has not stopped serving.
		_ = link.Send(&wire.Abort{Text: words(err, failure.Aborted)}, nil)
		conv.close()
		r.Close()
		var e *Error
		if !errors.As(err, &e) {
			err = unsent(err)
		}
		return nil, nil, err
	}
	return r, newSuccessor(conv, r.Welcome), nil
}

func (j *Joiner) receive(conv *conversation, r *Received) error {
	if err := conv.link.Send(&j.Hello, nil); err != nil {
		if !fdpass.Own(err) { // a refusal may be there already
			_, fds, e := j.next(conv, j.Timeout)
			_ = fdx.Close(fds...) // none belong here
			err = cmp.Or(e, err)
		}
		return err
	}
	if j.Meanwhile != nil {
		var err error
		if j.stop, err = j.Meanwhile(); err != nil {
			return &Error{Reason: failure.Transfer, Err: err}
		}
	}
	m, fds, err := j.next(conv, j.Timeout)
	if err != nil {
		return err
	}
	w, ok := m.(*wire.Welcome)
	if !ok {
		_ = fdx.Close(fds...)
		return unexpected(m)
	}
	if j.Welcomed != nil {
		j.Welcomed()
	}
	if len(fds) == 1 {
		r.Process = fds
	} else {
		_ = fdx.Close(fds...) // none belong here
	}
	r.Welcome = *w
	if w.Version < j.Hello.MinVersion || w.Version > j.Hello.MaxVersion {
		return &Error{Reason: failure.Version, Text: fmt.Sprintf("the predecessor chose version %d, we speak %d to %d", w.Version, j.Hello.MinVersion, j.Hello.MaxVersion)}
	}
	if w.Sockets > maxCount || w.States > maxCount {
		return &Error{Reason: failure.Protocol, Text: fmt.Sprintf("%d sockets and %d state blobs announced", w.Sockets, w.States)}
	}
	if j.Expect != nil && j.Hello.Via != wire.ViaInherit {
		if err := j.Expect(int(w.Sockets) + int(w.States)); err != nil {
			return &Error{Reason: failure.Transfer, Err: err}
		}
	}
	checks := newChecks(j.Check)
	defer checks.wait() // they borrow the descriptors
	for len(r.Sockets) < int(w.Sockets) || len(r.States) < int(w.States) {
		patience := j.Timeout
		if len(r.Sockets) == int(w.Sockets) {
			patience = max(patience, j.StateTimeout) // the predecessor's program writes it
		}
		m, fds, err := j.next(conv, patience)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wire.Sockets:
			err = j.takeSockets(r, m, fds)
			if err == nil {
				more := len(r.Sockets) < int(w.Sockets)
				err = j.check(conv, checks, m, r.Sockets[m.First:], more)
			}
		case *wire.States:
			err = j.takeStates(r, m, fds)
			if err == nil {
				err = conv.link.Send(&wire.Ack{Seq: m.Seq, Taken: uint32(len(m.Entries))}, nil)
			}
		case *wire.Stderr:
			if len(fds) != 3 || r.Stderr != nil {
				_ = fdx.Close(fds...)
				return &Error{Reason: failure.Protocol, Text: "standard error comes as three descriptors, once"}
			}
			r.Stderr = fds
		default:
			_ = fdx.Close(fds...)
			err = unexpected(m)
		}
		if err != nil {
			return err
		}
	}
	return conv.link.Send(&wire.Verified{}, nil)
}

// check checks a batch and acknowledges it: first, if there are more, which come
// meanwhile.
func (j *Joiner) check(conv *conversation, c *checks, m *wire.Sockets, batch []Item, more bool) error {
	ack := &wire.Ack{Seq: m.Seq, Taken: uint32(len(m.Entries))}
	if more {
		if err := conv.link.Send(ack, nil); err != nil {
			return err
		}
	}
	c.add(int(m.First), batch)
	if more && !c.failed() {
		return nil
	}
	if err := c.wait(); err != nil {
		return err
	}
	return conv.link.Send(ack, nil)
}

func (j *Joiner) takeSockets(r *Received, m *wire.Sockets, fds []int) error {
	inherited := func(e *wire.Socket) bool { return j.Hello.Via == wire.ViaInherit && !e.Kind.Sent() }
	want := 0
	for i := range m.Entries {
		if !inherited(&m.Entries[i]) {
			want++
		}
	}
	// Without an entry in each there would be no end to them.
	if len(m.Entries) == 0 || len(fds) != want || int(m.First) != len(r.Sockets) || len(r.Sockets)+len(m.Entries) > int(r.Welcome.Sockets) {
		_ = fdx.Close(fds...)
		return &Error{Reason: failure.Protocol, Text: fmt.Sprintf("%d descriptors for %d sockets, entry %d after %d of %d", len(fds), len(m.Entries), m.First, len(r.Sockets), r.Welcome.Sockets)}
	}
	if r.Sockets == nil {
		// One piece of memory for all, if there are not absurdly many.
		r.Sockets = make([]Item, 0, min(int(r.Welcome.Sockets), maxAtOnce))
	}
	for i := range m.Entries {
		it := Item{Socket: m.Entries[i], Inherited: inherited(&m.Entries[i])}
		if !it.Inherited {
			it.FD, fds = fds[0], fds[1:]
		}
		r.Sockets = append(r.Sockets, it)
	}
	return nil
}

func (j *Joiner) takeStates(r *Received, m *wire.States, fds []int) error {
	if len(fds) == 0 || len(fds) != len(m.Entries) || len(r.States)+len(fds) > int(r.Welcome.States) {
		_ = fdx.Close(fds...)
		return &Error{Reason: failure.Protocol, Text: fmt.Sprintf("%d descriptors for %d state blobs", len(fds), len(m.Entries))}
	}
	for i, e := range m.Entries {
		r.States = append(r.States, Blob{Name: e.Name, Size: e.Size, File: os.NewFile(uintptr(fds[i]), e.Name)})
	}
	for i, fd := range fds {
		if err := verifyBlob(r.States[len(r.States)-len(fds)+i], fd); err != nil {
			return &Error{Reason: failure.Transfer, Text: fmt.Sprintf("state %q", m.Entries[i].Name), Err: err}
		}
	}
	return nil
}

// next waits for a message of the transfer.
func (j *Joiner) next(conv *conversation, patience time.Duration) (wire.Message, []int, error) {
	j.quiet.restart(patience)
	for {
		select {
		case in, ok := <-conv.inbox:
			if !ok {
				return nil, nil, ended(conv)
			}
			if in.err != nil {
				return nil, nil, &Error{Reason: failure.Transfer, Err: in.err}
			}
			return said(in)
		case s := <-j.stop:
			return nil, nil, &Error{Reason: failure.Aborted, Err: &Stopped{s}}
		case <-j.quiet.ticker.C:
			if j.quiet.tick() {
				return nil, nil, &Error{Reason: failure.Hung, Text: fmt.Sprintf("the predecessor sent nothing for %v", patience)}
			}
		}
	}
}

// said makes an error of a message by which the predecessor gives up.
func said(in incoming) (wire.Message, []int, error) {
	switch m := in.msg.(type) {
	case *wire.Refuse:
		_ = fdx.Close(in.fds...) // none belong here
		return nil, nil, &Error{Reason: cmp.Or(m.Reason, failure.Other), Text: m.Text}
	case *wire.Rollback:
		_ = fdx.Close(in.fds...) // likewise
		return nil, nil, &Error{Reason: failure.RolledBack, Text: m.Text}
	}
	return in.msg, in.fds, nil
}

// ended says why conv has ended before the transfer has.
func ended(conv *conversation) error {
	err := conv.gone()
	switch {
	case err == nil:
		err = io.ErrUnexpectedEOF
	case errors.Is(err, fdpass.ErrTruncated):
		return &Error{Reason: failure.Transfer, Err: err}
	case conv.garbled():
		return &Error{Reason: failure.Protocol, Err: err}
	}
	return &Error{Reason: failure.PredecessorDied, Text: "before all sockets were passed", Err: err}
}

// unsent says why a message could not be sent.
func unsent(err error) error {
	if fdpass.Own(err) {
		return &Error{Reason: failure.Transfer, Err: err}
	}
	return &Error{Reason: failure.PredecessorDied, Err: err}
}

func unexpected(m wire.Message) error {
	return &Error{Reason: failure.Protocol, Text: fmt.Sprintf("unexpected %T", m)}
}
