package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-11c92bf9/baton/handoff"
)

// lnOther is the only listener of another service.
const lnOther = "other"

// serveOther is a service that has the control socket of this one by mistake. It returns
// the error of Ready.
func (p *process) serveOther() error {
	_, err := p.up.ListenNamed(context.Background(), lnOther, "tcp", p.Addrs[lnOther])
	if err == nil {
		if err = p.up.Ready(); err == nil {
			err = errors.New("the other service was let in")
		}
	}
	return errors.Join(err, p.up.Close())
}

// otherService starts another service with the same control socket, and waits until it has
// been refused.
func (rd *round) otherService(ctx context.Context) error {
	set := rd.set
	set.Addrs = map[string]string{lnOther: ":0"}
	pid, err := rd.startAs(set)
	if err != nil {
		return err
	}
	var last message
	err = rd.until(ctx, rd.first, func(ms []message) bool {
		for _, m := range ms {
			if m.PID == pid && (m.Kind == "failed" || m.Kind == "exit") {
				last = m
			}
		}
		return last.PID != 0 && !running(pid)
	})
	if err == nil && !last.Mismatch && !last.Busy && !(last.InUse && !byHand(rd.set.Mode)) {
		err = fmt.Errorf("another service with the same control socket: %q, want %w", last.Err, handoff.ErrMismatch)
	}
	return err
}

// otherAt starts another service at a step.
func otherAt(step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		came, err := rd.step(ctx, step)
		if err != nil || !came {
			return false, err
		}
		return true, rd.otherService(ctx)
	}
}

// otherBefore starts another service, and triggers the upgrade when that was refused.
func otherBefore(ctx context.Context, rd *round) (bool, error) {
	if err := rd.otherService(ctx); err != nil {
		return false, err
	}
	rd.begin()
	return true, rd.trigger()
}
