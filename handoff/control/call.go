package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

const (
	// sendTimeout bounds how long a request may take to be sent.
	sendTimeout = 5 * time.Second
	// leaveTimeout bounds how long the answer to a request that was taken back may
	// take: a successor that hangs has to be given up first.
	leaveTimeout = 30 * time.Second
	// maxAnswers bounds the answers with a part of a status.
	maxAnswers = 1024
)

// aLongTimeAgo is a deadline that has passed.
func aLongTimeAgo() time.Time { return time.Unix(1, 0) }

// call is callWith without descriptors.
func (c *Client) call(ctx context.Context, op string, body any, leave func(*session.WireLink) error, each func(operate.Answer) error) error {
	none := func(fds []int) { _ = fdx.Close(fds...) } // none belong here
	return c.callWith(ctx, op, body, leave, none, each)
}

// callWith asks once and hands each answer to each, until the final one. leave, if
// not nil, is called when ctx ends: it may have the server end the request, whose
// answer is then waited for; otherwise the call ends. took gets the descriptors
// that come with an answer, and owns them.
func (c *Client) callWith(ctx context.Context, op string, body any, leave func(*session.WireLink) error, took func([]int), each func(operate.Answer) error) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	link := session.NewWireLink(conn, sendTimeout)
	defer link.Close() // nothing to lose
	done := make(chan struct{})
	stopped := context.AfterFunc(ctx, func() { // ends at once
		defer close(done)
		if leave != nil && leave(link) == nil {
			_ = conn.SetReadDeadline(time.Now().Add(leaveTimeout)) // likewise
			return
		}
		_ = conn.SetReadDeadline(aLongTimeAgo()) // a closed one needs none
	})
	defer func() {
		if !stopped() {
			<-done
		}
	}()
	m, err := request(op, body)
	if err != nil {
		return err
	}
	sent := link.Send(m, nil) // who was refused at the door finds the reason there
	for {
		a, fds, final, err := answer(link)
		took(fds)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
			return fmt.Errorf("control: %s: %w", op, context.Cause(ctx))
		case errors.Is(err, errBroken):
			return fmt.Errorf("%w (%w)", ErrNoAnswer, errors.Join(err, sent))
		default:
			return err
		}
		if err := each(a); err != nil {
			return err
		}
		if final {
			return nil
		}
	}
}

// request encodes a request.
func request(op string, body any) (*wire.Request, error) {
	m := &wire.Request{Op: op, MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion}
	if body != nil {
		var err error
		if m.Body, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("control: %s: %w", op, err)
		}
	}
	return m, wire.Check(m)
}

// errBroken marks the end of a connection before the final answer.
var errBroken = errors.New("connection")

// answer reads one answer, with its descriptors, which the caller closes.
func answer(link *session.WireLink) (a operate.Answer, fds []int, final bool, err error) {
	m, fds, err := link.Recv()
	switch {
	case err == nil:
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge):
		return a, fds, false, fmt.Errorf("%w: %w", handoff.ErrProtocol, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return a, fds, false, err
	default:
		return a, fds, false, fmt.Errorf("%w: %w", errBroken, err)
	}
	a, final, err = decode(m)
	return a, fds, final, err
}

// decode makes an answer of a message.
func decode(m wire.Message) (a operate.Answer, final bool, err error) {
	switch m := m.(type) {
	case *wire.Refuse:
		return a, false, refusalError(m)
	case *wire.Response:
		if m.Version < wire.MinVersion || m.Version > wire.MaxVersion {
			return a, false, fmt.Errorf("%w: the server answers in version %d", handoff.ErrVersion, m.Version)
		}
		if err := json.Unmarshal(m.Body, &a); err != nil {
			return a, false, fmt.Errorf("%w: answer: %w", handoff.ErrProtocol, err)
		}
		if a.Failure != nil {
			return a, true, failureError(a.Failure)
		}
		return a, m.Final, nil
	}
	return a, false, fmt.Errorf("%w: unexpected %s", handoff.ErrProtocol, m.Type())
}

// decodeInto decodes a part of an answer that may be missing, and reports
// whether it is there.
func decodeInto[T any](raw json.RawMessage, into *T) (bool, error) {
	if len(raw) == 0 {
		return false, nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return false, fmt.Errorf("%w: answer: %w", handoff.ErrProtocol, err)
	}
	return true, nil
}
