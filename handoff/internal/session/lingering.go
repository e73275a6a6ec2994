package session

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// The ways in which a connection can fail to move. It stays with the caller, but
// where the error matches failure.InDoubt: the successor died, or fell silent, when
// its program may have had the connection, and may have read from it. The caller
// must not serve it: a connection has one server.
var (
	// ErrNotTaken says that the successor did not take a connection.
	ErrNotTaken = fmt.Errorf("%w: the successor's program receives no more connections, or it is short of descriptors", failure.NotTaken)
	// ErrNoTaker says that the successor's program takes no connections of that name.
	ErrNoTaker = fmt.Errorf("%w: the successor has not called Conns with this name", failure.NotTaken)
	// ErrGone says that the conversation with the successor is over.
	ErrGone = fmt.Errorf("%w: the conversation with it is over", failure.NotTaken)
)

// tellEach is how many connections one Taking announces. A message for each would cost
// as much as the rest of a move; if the successor dies, the sender gives up at most so
// many that the successor's program has not used.
const tellEach = 16

// maxConnsBytes keeps a Conns message within a frame.
const maxConnsBytes = 512 << 10

// Lingering is the predecessor's side after Commit.
type Lingering struct {
	conv  *conversation
	takes []string
	tells bool // the successor sends Taking

	moves  chan *move
	adopts chan *adoption
	quit   chan struct{} // closed by Bye
	gone   chan struct{} // closed when the conversation is over
	asked  chan string   // EndLinger
	bye    wire.Bye      // valid once quit is closed
	once   sync.Once
	hang   time.Duration
}

type move struct {
	conn wire.Conn
	fd   int // borrowed until done
	done chan error
}

type adoption struct {
	msg  wire.Adopt
	fd   int // borrowed until done
	done chan error
}

func newLingering(conv *conversation, t Trial, hang time.Duration) *Lingering {
	return &Lingering{
		conv:   conv,
		takes:  t.Conns,
		tells:  t.Tells,
		moves:  make(chan *move),
		adopts: make(chan *adoption),
		quit:   make(chan struct{}),
		gone:   make(chan struct{}),
		asked:  make(chan string, 1),
		hang:   hang,
	}
}

// Takes reports whether the successor takes connections of that name.
func (l *Lingering) Takes(name string) bool { return slices.Contains(l.takes, name) }

// Asked yields why the successor asks to end the linger now.
func (l *Lingering) Asked() <-chan string { return l.asked }

// Move passes fd, which it borrows, with its state to the successor. When it
// returns nil the successor has it, and the caller closes its own copy.
func (l *Lingering) Move(ctx context.Context, name string, state []byte, fd int) error {
	if !l.Takes(name) {
		return ErrNoTaker
	}
	m := &move{conn: wire.Conn{Name: name, State: state}, fd: fd, done: make(chan error, 1)}
	if err := wire.Check(&wire.Conns{Entries: []wire.Conn{m.conn}}); err != nil {
		return err // sending it would end the conversation
	}
	select {
	case l.moves <- m:
	case <-l.gone:
		return ErrGone
	case <-ctx.Done():
		return ctx.Err()
	}
	// From here on the answer decides, not ctx: the caller can't keep a connection
	// that the successor may have taken.
	return <-m.done
}

// Adopt passes on the conversation with an older predecessor: fd, borrowed.
func (l *Lingering) Adopt(m wire.Adopt, fd int) error {
	a := &adoption{msg: m, fd: fd, done: make(chan error, 1)}
	select {
	case l.adopts <- a:
		return <-a.done
	case <-l.gone:
		return ErrGone
	}
}

// Tell sends the progress of the linger. Errors show as the end of the conversation.
func (l *Lingering) Tell(m wire.Linger) { l.conv.say(&m) }

// Released says that the sockets of a kind are closed here. holders are pidfds,
// borrowed, of other processes that may still have duplicates. Errors show as the
// end of the conversation.
func (l *Lingering) Released(kind wire.SocketKind, holders []int) {
	l.conv.say(&wire.Released{Kind: kind, Holders: uint32(len(holders))}, holders...)
}

// Account tells the successor how the last upgrades went. Errors show as the end
// of the conversation.
func (l *Lingering) Account(m wire.Account) { l.conv.say(&m) }

// Bye ends the conversation: nothing moves any more, and Run returns when the
// successor has acknowledged what was sent, or was silent for too long. Only the first
// call counts.
func (l *Lingering) Bye(m wire.Bye) {
	l.once.Do(func() {
		l.bye = m
		close(l.quit)
	})
}

// Run moves connections until Bye, or until the conversation is over.
func (l *Lingering) Run() {
	w := &lingerWindow{link: l.conv.link, open: make(map[uint32]*sending)}
	alive := true // as far as is known: the successor may still take what was sent
	defer l.conv.close()
	defer func() {
		close(l.gone)
		w.fail(alive || !l.tells)
	}()
	quit, moves, adopts := l.quit, l.moves, l.adopts
	quiet := newSilence(l.hang)
	defer quiet.stop()
	for {
		if quit == nil && len(w.open) == 0 {
			_ = l.conv.link.Send(&l.bye, nil) // it may have ended by now
			return
		}
		mv, ad := moves, adopts
		if len(w.open) >= window {
			mv, ad = nil, nil
		}
		select {
		case in, ok := <-l.conv.inbox:
			if !ok {
				alive = l.conv.garbled()
				return
			}
			_ = fdx.Close(in.fds...) // a successor sends none
			switch m := in.msg.(type) {
			case *wire.Ack:
				w.ack(m)
				quiet.heard()
			case *wire.Taking:
				w.taking(m)
			case *wire.EndLinger:
				select {
				case l.asked <- m.Text:
				default: // asked already
				}
			}
		case m := <-mv:
			w.sendMoves(l.gather(m))
		case a := <-ad:
			w.sendAdoption(a)
		case <-quit:
			quit, moves, adopts = nil, nil, nil // what was sent is settled first
			quiet.heard()
		case <-quiet.ticker.C:
			if quit == nil && quiet.tick() {
				return
			}
		}
	}
}

// gather takes further moves that wait.
func (l *Lingering) gather(m *move) []*move {
	ms, size := []*move{m}, len(m.conn.State)
	for len(ms) < batch && size < maxConnsBytes {
		select {
		case m := <-l.moves:
			ms, size = append(ms, m), size+len(m.conn.State)
		default:
			return ms
		}
	}
	return ms
}

// lingerWindow holds what has been sent and not yet acknowledged.
type lingerWindow struct {
	link Link
	seq  uint32
	open map[uint32]*sending
}

// sending is a message that waits for its acknowledgement.
type sending struct {
	// settle gets the number of entries that were taken, or why that is not known:
	// then the first doubt entries may have been taken, and no other was.
	settle func(taken, doubt uint32, err error)
	taking uint32 // entries that the program was about to get
}

func (w *lingerWindow) sendMoves(ms []*move) {
	msg := &wire.Conns{}
	fds := make([]int, len(ms))
	for i, m := range ms {
		msg.Entries = append(msg.Entries, m.conn)
		fds[i] = m.fd
	}
	w.seq++
	msg.Seq = w.seq
	w.sent(w.link.Send(msg, fds), func(taken, doubt uint32, err error) {
		for i, m := range ms {
			switch {
			case uint32(i) < doubt:
				m.done <- failure.InDoubt
			case err != nil:
				m.done <- err
			case uint32(i) < taken:
				m.done <- nil
			default:
				m.done <- ErrNotTaken
			}
		}
	})
}

func (w *lingerWindow) sendAdoption(a *adoption) {
	w.seq++
	a.msg.Seq = w.seq
	w.sent(w.link.Send(&a.msg, []int{a.fd}), func(taken, _ uint32, err error) {
		if err == nil && taken == 0 {
			err = ErrNotTaken
		}
		a.done <- err
	})
}

// sent notes what to do when the message with the current number is
// acknowledged, or at once if it could not be sent.
func (w *lingerWindow) sent(err error, settle func(taken, doubt uint32, err error)) {
	if err != nil {
		settle(0, 0, fmt.Errorf("%w: %w", ErrNotTaken, err))
		return
	}
	w.open[w.seq] = &sending{settle: settle}
}

func (w *lingerWindow) ack(m *wire.Ack) {
	if s, ok := w.open[m.Seq]; ok {
		delete(w.open, m.Seq)
		s.settle(m.Taken, 0, nil)
	}
}

func (w *lingerWindow) taking(m *wire.Taking) {
	if s, ok := w.open[m.Seq]; ok && m.Index < batch {
		s.taking = max(s.taking, m.Index+1)
	}
}

// fail settles what will not be acknowledged. doubtful says that the successor may take
// all of it, or may have; otherwise only what it had announced by Taking when it died.
func (w *lingerWindow) fail(doubtful bool) {
	for _, s := range w.open {
		if doubtful {
			s.taking = batch
		}
		s.settle(0, s.taking, ErrGone)
	}
}
