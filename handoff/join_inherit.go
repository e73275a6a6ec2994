package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// joinParent joins the process that has started us by tableflip.
func (u *Upgrader) joinParent() error {
	c, err := u.inheritConversation()
	if err != nil {
		return fmt.Errorf("handoff: inherited conversation: %w", err)
	}
	dialled := c == nil
	if dialled {
		if c, err = u.dialParent(); c == nil {
			return err
		}
	}
	parent := u.engine.ParentEnded()
	if dialled {
		// The inherited listener makes a dial succeed even if no process is left to
		// answer.
		defer context.AfterFunc(parent, func() { _ = c.Close() })() // which ends the join
	} // else what the parent has sent stands, though it may have ended since
	err = u.joinOver(c, wire.ViaInherit)
	died := parentDied(err, parent.Done(), u.cfg.hang)
	if !died {
		return err
	}
	// Its sockets are here all the same, under the names that tableflip knows.
	u.log.Warn("the predecessor died before it sent its manifest: using the inherited sockets", "error", err)
	if u.control == nil {
		return u.inheritControl()
	}
	return nil
}

// inheritConversation returns the inherited end of the conversation, or nil where this
// process has to dial: a parent of an older version accepts at the control socket, and
// one that has dropped its privileges is recognised there by those that it had.
func (u *Upgrader) inheritConversation() (*net.UnixConn, error) {
	c, err := u.engine.Conversation()
	if err != nil || c == nil {
		return nil, err
	}
	if u.checkInherited(fdx.PeerCred(c)) != nil {
		_ = c.Close() // it is none of ours
		return nil, nil
	}
	return c, nil
}

// dialParent returns a connection to the parent's control socket, or nil if the parent
// is a plain tableflip service, which has no conversation.
func (u *Upgrader) dialParent() (*net.UnixConn, error) {
	if err := u.inheritControl(); err != nil {
		return nil, err
	}
	if u.control == nil {
		u.log.Info("joined", "predecessor", "plain tableflip", "mode", Inherit)
		return nil, nil
	}
	c, err := operate.Dial(u.control.Listener.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("%w: dial the control socket: %w", ErrPredecessorDied, err)
	}
	if err := u.checkPeer(fdx.PeerCred(c)); err != nil {
		_ = c.Close() // it is none of ours
		return nil, err
	}
	return c, nil
}

// inheritControl takes the inherited control socket, if there is one.
func (u *Upgrader) inheritControl() error {
	h, err := u.engine.Open(&wire.Socket{Kind: wire.KindControl})
	if err != nil {
		return fmt.Errorf("handoff: inherited control socket: %w", err)
	}
	if h == nil {
		return nil
	}
	ln := h.(net.Listener)
	if abstract(ln.Addr().String()) {
		return errors.Join(ln.Close(), u.engine.Forget(&wire.Socket{Kind: wire.KindControl}))
	}
	u.control, err = controlSocket(ln)
	return err
}

// parentDied reports whether a join has failed with err because the parent has ended.
// The conversation can end a moment before tableflip reports that.
func parentDied(err error, gone <-chan struct{}, hang time.Duration) bool {
	if err == nil {
		return false
	}
	if !errors.Is(err, ErrPredecessorDied) {
		hang = 0
	}
	return closedWithin(context.Background(), hang, gone)
}
