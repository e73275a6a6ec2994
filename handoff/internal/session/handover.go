package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// greet answers the successor that has come on link.
func (p *Predecessor) greet(a Arrival) {
	p.conv, p.hello, p.peer = converse(a.Link), a.Hello, a.Ended
	w := p.Welcome
	var ok bool
	if w.Version, ok = wire.Choose(a.Hello.MinVersion, a.Hello.MaxVersion); !ok {
		text := fmt.Sprintf("successor speaks protocol versions %d to %d, predecessor %d to %d", a.Hello.MinVersion, a.Hello.MaxVersion, wire.MinVersion, wire.MaxVersion)
		p.send(&wire.Refuse{Reason: failure.Version, Text: text})
		p.because(predNoVersion, &Error{Text: text})
		return
	}
	w.Probation = max(p.Timeouts.Probation, 0)
	w.ReadyTimeout = max(p.Timeouts.Ready, 0)
	w.HangTimeout = p.Timeouts.Hang
	items, release := p.Manifest()
	defer release()
	w.Sockets = uint32(len(items))
	p.event(predHello)
	p.send(&w, p.Process...)
	if p.state.phase != predSending {
		return
	}
	p.enter(PhaseTransfer)
	if p.Stderr != nil {
		p.send(&wire.Stderr{}, p.Stderr()...)
	}
	if p.state.phase != predSending {
		return
	}
	t := transfer{conv: p.conv, hang: p.Timeouts.Hang, deadline: p.deadline, cancel: p.Cancel}
	err := t.sockets(items)
	if err == nil && w.States > 0 {
		err = p.passStates(&t)
	}
	if err != nil {
		p.transferFailed(err)
	}
}

// transferFailed turns the error of a transfer into an event.
func (p *Predecessor) transferFailed(err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Reason: failure.Transfer, Err: err}
	}
	switch e.Reason {
	case failure.SuccessorDied: // the loop finds the inbox closed
	case failure.Timeout:
		p.because(predDeadline, p.notReady())
	case failure.RolledBack, failure.Canceled:
		p.because(predCancel, e)
	case failure.Aborted:
		p.because(predAborted, e)
	case failure.Hung:
		p.because(predSilent, e)
	case failure.Protocol:
		p.because(predProtocolError, e)
	default:
		p.because(predTransferError, e)
	}
}

func (p *Predecessor) notReady() *Error {
	called := "New was not called"
	if p.conv != nil {
		called = "New was called, and Ready was not"
	}
	return &Error{Text: fmt.Sprintf("not ready within %v: %s", p.Timeouts.Ready, called)}
}

// passStates has the program write the state blobs, and sends them.
func (p *Predecessor) passStates(t *transfer) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type written struct {
		blobs []Blob
		err   error
	}
	done := make(chan written, 1)
	go func() { // ends with the callback, waited for below
		blobs, err := p.States(ctx)
		done <- written{blobs, err}
	}()
	var w written
	var stopped error
	select {
	case w = <-done:
	case e := <-p.Cancel:
		stopped = e
	case <-p.deadline:
		stopped = &Error{Reason: failure.Timeout}
	case in, ok := <-t.conv.inbox:
		stopped = &Error{Reason: failure.SuccessorDied}
		switch {
		case in.err != nil:
			stopped = in.err
		case ok:
			stopped = &Error{Reason: failure.Protocol, Text: fmt.Sprintf("%T while state is written", in.msg)}
			if m, is := in.msg.(*wire.Abort); is {
				stopped = &Error{Reason: failure.Aborted, Text: m.Text}
			}
			_ = fdx.Close(in.fds...) // a successor sends none
		}
	}
	if stopped != nil {
		cancel()
		w = <-done
	}
	defer func() {
		for _, b := range w.blobs {
			_ = b.File.Close() // the successor has its own
		}
	}()
	if err := errors.Join(stopped, w.err); err != nil {
		return err
	}
	return t.states(w.blobs)
}
