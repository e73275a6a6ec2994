package reuseport

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// giveUp closes listeners whose address this process does not serve any more.
//
// A lookup passes over a listener that is bound to another interface, so a SYN finds
// another listener on its address, or none. The last ACK of a handshake finds its
// request socket, and by that the listener (tcp_v4_rcv, net/ipv4/tcp_ipv4.c).
func (g *localGroup) giveUp(ctx context.Context, left []*socket, report *Report) error {
	switch {
	case len(left) == 0:
		return nil
	case g.udp:
		return fmt.Errorf("reuseport: Move of a datagram socket needs an own one, which gets the traffic: %w", errors.ErrUnsupported)
	}
	t := &turn{g: g, report: report, start: time.Now(), busy: time.Now()}
	defer t.end()
	if err := t.openRefs(left[0]); err != nil {
		return err
	}
	if t.refs != nil && control(left[0].conn, plainListener) != nil {
		t.refs.close() // MPTCP has references of its own
		t.refs = nil
	}
	if t.refs == nil {
		t.dc, _ = diag.Dial() // without it only the queue is waited for
	}
	report.Last = true
	for _, s := range left {
		if err := bindNowhere(s.conn); err == nil {
			t.strategy(StrategyHide)
		} else if serr := stopQueueing(s.conn); serr == nil {
			t.strategy(StrategyStopQueueing)
		} else {
			t.strategy(StrategyBestEffort)
			t.lossy(errors.Join(err, serr).Error())
		}
	}
	if report.LossPossible && t.refs != nil { // see bestEffort
		t.refs.close()
		t.refs = nil
	}
	err := awaitGrace(ctx)
	if err == nil {
		err = t.empty(ctx, left)
	}
	if err != nil {
		err = t.closeNow(ctx, g.present(left), err)
	}
	return errors.Join(append(t.errs, err)...)
}
