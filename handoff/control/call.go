package control

import (
	"bytes"
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
	"github.com/seed-11c92bf9/baton/internal/procs"
)

const (
	// sendTimeout bounds how long a request may take to be sent.
	sendTimeout = 5 * time.Second
	// cancelTimeout bounds how long the answer to a canceled request may take: the
	// server has to give up a successor that hangs first.
	cancelTimeout = 30 * time.Second
	// maxObjects bounds the JSON objects of an answer: the largest part of a status has
	// 512 sockets, 16 reports, and what lingers.
	maxObjects = 1 << 13
)

// A call is a request and the use of its answers.
type call struct {
	op   string
	body any // nil if the request has none
	// answer gets each answer, up to the final one.
	answer func(answer) error
	// process, if not nil, gets the server's process, if the server sends it. The
	// caller closes it.
	process **procs.Pidfd
	// cancels has the server end the request when the context ends, and waits for
	// the answer. Otherwise the end of the context ends the call alone.
	cancels bool
}

// do sends the request of a call and reads the answers.
func (c *Client) do(ctx context.Context, r call) error {
	if ctx.Err() != nil {
		return fmt.Errorf("control: %s: %w", r.op, context.Cause(ctx))
	}
	m, err := request(r.op, r.body)
	if err != nil {
		return err
	}
	m.Name = c.name
	conn, err := c.dial()
	if err != nil {
		return err
	}
	link := session.NewWireLink(conn, sendTimeout)
	defer link.Close() // nothing to lose
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { // returns at once
		defer close(ended)
		limit := time.Unix(1, 0)
		if r.cancels && cancel(link) == nil {
			limit = time.Now().Add(cancelTimeout)
		}
		_ = conn.SetReadDeadline(limit) // a closed one needs none
	})
	defer func() {
		if !stop() {
			<-ended
		}
	}()
	sent := link.Send(m, nil) // even after an error: the server may have sent a refusal
	for {
		a, final, err := r.receive(link)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
			return fmt.Errorf("control: %s: %w", r.op, context.Cause(ctx))
		case errors.Is(err, errBroken):
			return fmt.Errorf("%w (%w)", ErrNoAnswer, errors.Join(err, sent))
		default:
			return err
		}
		if err := r.answer(a); err != nil || final {
			return err
		}
	}
}

// cancel asks the server to end the request.
func cancel(link *session.WireLink) error {
	m, err := request(operate.OpCancel, nil)
	if err != nil {
		return err
	}
	return link.Send(m, nil)
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

// receive reads one answer.
func (r *call) receive(link *session.WireLink) (a answer, final bool, err error) {
	m, fds, err := link.Recv()
	if r.process != nil && *r.process == nil && len(fds) == 1 {
		*r.process, _ = procs.NewPidfd(fds[0]) // without it, the end of the process is not waited for
	} else {
		_ = fdx.Close(fds...) // none belong here
	}
	switch {
	case err == nil:
		return decode(m)
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge):
		return a, false, fmt.Errorf("%w: %w", handoff.ErrProtocol, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return a, false, err
	}
	return a, false, fmt.Errorf("%w: %w", errBroken, err)
}

// answer is what operate.Answer holds, in the types of package handoff.
type answer struct {
	Status  *handoff.Status  `json:"status"`
	Event   *handoff.Event   `json:"event"`
	Report  *handoff.Report  `json:"report"`
	Linger  *Linger          `json:"linger"`
	Failure *operate.Failure `json:"failure"`

	size int // of its JSON
}

// decode makes an answer of a message.
func decode(m wire.Message) (a answer, final bool, err error) {
	switch m := m.(type) {
	case *wire.Refuse:
		return a, false, refusalError(m)
	case *wire.Response:
		if m.Version < wire.MinVersion || m.Version > wire.MaxVersion {
			return a, false, fmt.Errorf("%w: the server answers in version %d", handoff.ErrVersion, m.Version)
		}
		if n := bytes.Count(m.Body, []byte("{")); n > maxObjects { // a small one can take a hundred times its length
			return a, false, fmt.Errorf("%w: %d objects in an answer", handoff.ErrProtocol, n)
		}
		a.size = len(m.Body)
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
