package session

import (
	"errors"
	"sync"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// Following is the successor's side after Commit: it watches a predecessor
// that lingers.
type Following struct {
	// Deliver gets a connection that moved, and owns fd. It reports whether it takes
	// the connection; the predecessor keeps it otherwise.
	Deliver func(name string, state []byte, fd int) bool
	// Adopt gets the conversation with an older predecessor, and owns fd. It reports
	// whether it takes the conversation.
	Adopt func(m wire.Adopt, fd int) bool
	// Told is called with each progress report of the linger.
	Told func(wire.Linger)
	// Released is called when the predecessor has closed its sockets of a kind. It
	// owns holders, the pidfds of other processes that may still have duplicates. It
	// may be nil: the sockets stay shared.
	Released func(kind wire.SocketKind, holders []int)
	// Account is called with the account of the last upgrades. It may be nil.
	Account func(wire.Account)

	conv    *conversation
	welcome wire.Welcome
	last    wire.Bye
	clean   bool

	delivering sync.Mutex // held from Taking to Ack
}

func newFollowing(conv *conversation, w wire.Welcome) *Following {
	return &Following{conv: conv, welcome: w}
}

// Follow follows an older predecessor over a link that was passed on. It takes
// ownership of link.
func Follow(link Link, m wire.Adopt) *Following {
	return newFollowing(converse(link), wire.Welcome{
		Version: m.Version, Generation: m.Generation, PID: m.PID, Build: m.Build,
	})
}

// Predecessor describes the predecessor.
func (f *Following) Predecessor() wire.Welcome { return f.welcome }

// Run serves the conversation until the predecessor has sent Bye, or has ended, or
// Detach takes the conversation away. It returns the predecessor's Bye, and whether
// there was one.
func (f *Following) Run() (wire.Bye, bool) {
	for in := range f.conv.inbox {
		switch m := in.msg.(type) {
		case *wire.Conns:
			f.take(m, in.fds)
		case *wire.Adopt:
			taken := uint32(0)
			if len(in.fds) != 1 {
				_ = fdx.Close(in.fds...) // the sender still has its own
			} else if f.Adopt(*m, in.fds[0]) {
				taken = 1
			}
			f.ack(m.Seq, taken)
		case *wire.Linger:
			_ = fdx.Close(in.fds...) // none belong here
			f.Told(*m)
		case *wire.Released:
			if f.Released == nil || len(in.fds) != int(m.Holders) {
				_ = fdx.Close(in.fds...) // without a pidfd of each the sockets stay shared
			} else {
				f.Released(m.Kind, in.fds)
			}
		case *wire.Account:
			_ = fdx.Close(in.fds...) // none belong here
			if f.Account != nil {
				f.Account(*m)
			}
		case *wire.Bye:
			_ = fdx.Close(in.fds...) // none belong here
			f.last, f.clean = *m, true
		default:
			_ = fdx.Close(in.fds...) // none belong here
		}
		if f.clean {
			break
		}
	}
	if f.clean || !errors.Is(f.conv.err, errInterrupted) { // err is there once the inbox is closed
		f.conv.close()
	}
	return f.last, f.clean
}

// take hands the connections of m to the program.
//
// Taking announces each, a few at once, before the program can use it. If this process
// dies in between, the connection ends with it, as it would a moment later: the sender
// can't serve it again, because the program may have read from it.
func (f *Following) take(m *wire.Conns, fds []int) {
	f.delivering.Lock()
	defer f.delivering.Unlock()
	f.ack(m.Seq, f.deliver(m, fds))
}

func (f *Following) deliver(m *wire.Conns, fds []int) uint32 {
	if len(fds) != len(m.Entries) {
		_ = fdx.Close(fds...) // the sender still has its own
		return 0
	}
	for i, e := range m.Entries {
		var err error
		if i%tellEach == 0 {
			last := min(i+tellEach, len(fds)) - 1
			err = f.conv.link.Send(&wire.Taking{Seq: m.Seq, Index: uint32(last)}, nil)
		}
		if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			// It has not read Taking, and lives: it keeps them when the conversation ends.
			_ = fdx.Close(fds[i:]...)
			_ = f.conv.link.Close()
			return uint32(i)
		}
		if !f.Deliver(e.Name, e.State, fds[i]) {
			_ = fdx.Close(fds[i+1:]...) // likewise
			return uint32(i)
		}
	}
	return uint32(len(fds))
}

func (f *Following) ack(seq, taken uint32) { f.conv.say(&wire.Ack{Seq: seq, Taken: taken}) }

// End asks the predecessor to end its linger now.
func (f *Following) End(reason string) {
	f.conv.say(&wire.EndLinger{Text: reason}) // an error ends the conversation, and so the linger
}

// Detach stops Run between two messages and reports whether the conversation can be
// passed on. The link stays open.
func (f *Following) Detach() bool { return f.conv.detach() }

// Stop ends the conversation; Run returns. It waits for Deliver: what that takes
// is acknowledged.
func (f *Following) Stop() {
	f.delivering.Lock()
	defer f.delivering.Unlock()
	_ = f.conv.link.Close() // Run closes it again, to no effect
}

// Link returns the link, to be passed on after Detach, and then to be closed.
func (f *Following) Link() Link { return f.conv.link }
