package session

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// quietTicks is how many ticks without a message make a silence. A process that was
// stopped gets one tick for all the time that it missed.
const quietTicks = 5

// incoming is a message as it came from the link. The reader of the inbox owns fds.
type incoming struct {
	msg wire.Message
	fds []int
	err error // of a system call of this process, in place of a message: more may come
}

// conversation reads a link in a goroutine of its own, so that its owner can
// select on messages beside everything else. The inbox is closed when the link has
// ended; err says why.
type conversation struct {
	link  Link
	inbox chan incoming
	err   error // valid once the inbox is closed

	quit chan struct{}
	once sync.Once
	wg   sync.WaitGroup
}

// converse takes ownership of link and starts to read it.
func converse(link Link) *conversation {
	c := &conversation{link: link, inbox: make(chan incoming), quit: make(chan struct{})}
	c.wg.Go(c.read) // ends with the link, or with stop
	return c
}

func (c *conversation) read() {
	defer close(c.inbox)
	for {
		m, fds, err := c.link.Recv()
		if errors.Is(err, fdpass.ErrTruncated) && optional(m) {
			err = nil
		}
		in := incoming{m, fds, err}
		if err != nil && !fdpass.Own(err) {
			c.err = err
			return
		}
		select {
		case c.inbox <- in:
		case <-c.quit:
			_ = fdx.Close(fds...) // the inbox has no reader
			c.err = errInterrupted
			return
		}
	}
}

// optional reports whether the conversation can continue without the descriptors of m.
// The sender of a connection keeps it until it is acknowledged, and a successor that
// lacks a pidfd of Released moves nothing.
func optional(m wire.Message) bool {
	switch m.(type) {
	case *wire.Conns, *wire.Adopt, *wire.Released:
		return true
	}
	return false
}

// say sends m with fds, which it borrows. An error of the connection shows as its end,
// behind the peer's last messages. Another error ends the conversation: the peer
// would wait for m.
func (c *conversation) say(m wire.Message, fds ...int) {
	if err := c.link.Send(m, fds); fdpass.Own(err) {
		_ = c.link.Close()
	}
}

// gone describes the end of the conversation once the inbox is closed.
func (c *conversation) gone() error {
	if c.err == nil || errors.Is(c.err, io.EOF) {
		return nil
	}
	return c.err
}

// garbled reports whether the conversation ended, once the inbox is closed,
// because the peer broke the protocol. The peer may be alive and not know it.
func (c *conversation) garbled() bool {
	return errors.Is(c.err, wire.ErrMalformed) || errors.Is(c.err, wire.ErrTooLarge) ||
		errors.Is(c.err, fdpass.ErrMalformed) || errors.Is(c.err, fdpass.ErrTooLarge) ||
		errors.Is(c.err, fdpass.ErrTruncated)
}

// close ends the conversation and waits for its reader.
func (c *conversation) close() {
	c.once.Do(func() { close(c.quit) })
	_ = c.link.Close() // the peer sees the end either way
	c.wg.Wait()
}

// detach stops the reader between two messages and leaves the link open.
// The caller must have the inbox read until it is closed. It reports false if the
// conversation had ended before.
func (c *conversation) detach() bool {
	c.link.Interrupt()
	c.wg.Wait()
	return errors.Is(c.err, errInterrupted)
}

// silence counts the ticks since the peer's last message.
type silence struct {
	ticker *time.Ticker
	quiet  int
}

func newSilence(hang time.Duration) *silence {
	return &silence{ticker: time.NewTicker(tickOf(hang))}
}

func tickOf(hang time.Duration) time.Duration { return max(hang/quietTicks, time.Millisecond) }

// restart begins again, with a limit that may differ.
func (s *silence) restart(hang time.Duration) {
	s.heard()
	s.ticker.Reset(tickOf(hang))
}

// heard notes a message of the peer.
func (s *silence) heard() { s.quiet = 0 }

// tick counts a tick and reports whether the limit is exceeded.
func (s *silence) tick() bool {
	s.quiet++
	return s.quiet > quietTicks
}

func (s *silence) stop() { s.ticker.Stop() }

// awaitReady reads the Ready of a successor that tableflip says is ready: it has sent that
// before.
func (p *Predecessor) awaitReady() {
	limit := time.NewTimer(p.Timeouts.Hang / quietTicks)
	defer limit.Stop()
	for p.conv != nil && p.state.phase < predProbation {
		select {
		case in, ok := <-p.conv.inbox:
			if !ok || in.err != nil {
				return // tableflip's word is enough
			}
			_ = fdx.Close(in.fds...) // a successor sends none
			p.message(in.msg)
		case <-limit.C:
			return
		}
	}
}
