package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// envTableflip is how tableflip v1.2.3 tells a process that it has a parent.
const envTableflip = "TABLEFLIP_HAS_PARENT_7DIU3"

// tableflipControl is the name under which the control socket is inherited.
const tableflipControl = "baton.control"

// tableflipConversation is the name under which a mailbox is inherited that has the
// successor's end of the conversation.
const tableflipConversation = "baton.conversation"

// engine is tableflip's Upgrader, the engine of mode Inherit. It starts the
// successor and lets it inherit the sockets; the conversation, which is inherited
// beside them, adds what tableflip leaves out. There is one Upgrader in a process
// at most, which is tableflip's rule.
type engine struct {
	tf    *tableflip.Upgrader
	spent atomic.Bool // its successor has committed
	paths atomic.Bool // it knows a unix socket's path

	// What it has inherited and given to us, by fileName and tableflipControl: it passes
	// that on as it is.
	mu    sync.Mutex
	given map[string]sockets.Handle
}

// newEngine joins the parent, if there is one.
func newEngine(timeout time.Duration) (*engine, error) {
	child := os.Getenv(envTableflip) != ""
	tf, err := tableflip.New(tableflip.Options{UpgradeTimeout: timeout})
	if errors.Is(err, tableflip.ErrNotSupported) {
		return nil, fmt.Errorf("%w: mode inherit on this system: %w", ErrUnsupported, err)
	}
	if err != nil {
		return nil, fmt.Errorf("handoff: %w", err)
	}
	if child {
		// tableflip leaves all three to be inherited by any process that we
		// start, and one that uses tableflip itself would take itself for a
		// successor.
		if err := os.Unsetenv(envTableflip); err != nil {
			return nil, err
		}
		closeOnExec(3)
		closeOnExec(4)
	}
	return &engine{tf: tf, given: make(map[string]sockets.Handle)}, nil
}

// child reports whether tableflip has started us.
func (e *engine) child() bool { return e.tf.HasParent() }

// give notes that c is what was inherited under a name.
func (e *engine) give(name string, c sockets.Handle) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.given[name] = c
}

// passesOn reports whether tableflip has s under a name already. It is asked once for
// each socket: the next of that name is another.
func (e *engine) passesOn(name string, s *sockets.Socket) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, ok := e.given[name]
	delete(e.given, name)
	return ok && c == s.Handle()
}

// addControl has successors inherit the control socket.
func (e *engine) addControl(s *sockets.Socket) error {
	if e.passesOn(tableflipControl, s) {
		return nil
	}
	return e.addFile(tableflipControl, s)
}

// control returns the inherited control socket, or nil if the parent is a
// plain tableflip service.
func (e *engine) control() (net.Listener, error) {
	h, err := e.open(sockets.Key{Kind: wire.KindControl, Name: tableflipControl}, tableflipControl)
	if err != nil || h == nil {
		return nil, err
	}
	e.give(tableflipControl, h)
	return h.(net.Listener), nil
}

// addConversation has the next successor inherit one end of a new conversation, and
// returns the other.
func (e *engine) addConversation() (*net.UnixConn, error) {
	box, conv, err := newMailbox()
	if err != nil {
		return nil, err
	}
	defer box.Close() // tableflip takes a copy
	// tableflip does not say who its child is, and a child of that one may speak.
	if err := errors.Join(fdx.ExpectCred(conv), e.tf.AddFile(tableflipConversation, box)); err != nil {
		_ = conv.Close() // nobody at the other end
		return nil, err
	}
	return conv, nil
}

// conversation returns the inherited end of the conversation, or nil if the parent
// has left none, or another process has taken it.
func (e *engine) conversation() (*net.UnixConn, error) {
	box, err := e.tf.File(tableflipConversation)
	if err != nil || box == nil {
		return nil, err
	}
	defer box.Close() // a copy
	return openMailbox(box)
}

// plain reports whether a plain tableflip service knows a socket by network
// and address; the others are inherited under names of their own.
func plain(e *wire.Socket) bool { return e.Name == "" && e.Shard == 0 }

func fileName(e *wire.Socket) string {
	return strings.Join([]string{"baton.socket", strconv.Itoa(int(e.Kind)), e.Name, e.Network, e.Address, strconv.Itoa(int(e.Shard))}, "|")
}

// notePath notes a path that tableflip's Stop would remove.
func (e *engine) notePath(s *wire.Socket) {
	if plain(s) && strings.HasPrefix(s.Network, "unix") && !strings.HasPrefix(s.Address, "@") {
		e.paths.Store(true)
	}
}

// add has successors inherit s, from now on.
func (e *engine) add(s *sockets.Socket) error {
	e.notePath(&s.Entry)
	if e.passesOn(fileName(&s.Entry), s) {
		return nil
	}
	switch h := s.Handle().(type) {
	case *os.File:
		if s.Entry.Shard == 0 {
			return e.tf.AddFile(s.Entry.Name, h)
		}
	case tableflip.Listener:
		if plain(&s.Entry) {
			return e.tf.AddListener(s.Entry.Network, s.Entry.Address, h)
		}
	case tableflip.PacketConn:
		if plain(&s.Entry) {
			return e.tf.AddPacketConn(s.Entry.Network, s.Entry.Address, h)
		}
	}
	return e.addFile(fileName(&s.Entry), s)
}

func (e *engine) addFile(name string, s *sockets.Socket) error {
	dup, err := fdx.Dup(s.Handle())
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dup), name)
	defer f.Close() // tableflip takes a copy of its own
	return e.tf.AddFile(name, f)
}

// forget closes the copy of s that tableflip holds. It has no call for that: a
// file under the same name replaces s, and the garbage collector closes what
// was replaced. Without it a socket that its user has closed would go on to
// queue connections that nobody accepts.
func (e *engine) forget(s *sockets.Socket) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close() // tableflip takes a copy
	switch p := (placeholder{null}); {
	case s.Entry.Kind == wire.KindFile && s.Entry.Shard == 0:
		err = e.tf.AddFile(s.Entry.Name, null)
	case s.Entry.Kind == wire.KindListener && plain(&s.Entry):
		err = e.tf.AddListener(s.Entry.Network, s.Entry.Address, p)
	case s.Entry.Kind == wire.KindPacket && plain(&s.Entry):
		err = e.tf.AddPacketConn(s.Entry.Network, s.Entry.Address, p)
	default:
		err = e.tf.AddFile(fileName(&s.Entry), null)
	}
	runtime.GC()
	return err
}

// placeholder takes the place of a socket in tableflip's table.
type placeholder struct{ *os.File }

func (placeholder) Accept() (net.Conn, error)              { return nil, net.ErrClosed }
func (placeholder) Addr() net.Addr                         { return &net.UnixAddr{} }
func (placeholder) LocalAddr() net.Addr                    { return &net.UnixAddr{} }
func (placeholder) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, net.ErrClosed }
func (placeholder) WriteTo([]byte, net.Addr) (int, error)  { return 0, net.ErrClosed }

var (
	_ tableflip.Listener   = placeholder{}
	_ tableflip.PacketConn = placeholder{}
	_ io.Closer            = placeholder{}
)

// Open returns the inherited socket or file that s describes, or nil.
func (e *engine) Open(s *wire.Socket) (h sockets.Handle, err error) {
	e.notePath(s)
	k := sockets.KeyOf(s)
	switch {
	case s.Kind == wire.KindFile && s.Shard == 0:
		h, err = e.open(k, s.Name)
	case s.Kind == wire.KindListener && plain(s):
		var ln net.Listener
		if ln, err = e.tf.Listener(s.Network, s.Address); ln != nil {
			h = ln.(sockets.Handle)
		}
	case s.Kind == wire.KindPacket && plain(s):
		var pc net.PacketConn
		if pc, err = e.tf.PacketConn(s.Network, s.Address); pc != nil {
			h = pc.(sockets.Handle)
		}
	default:
		h, err = e.open(k, fileName(s))
	}
	if h != nil {
		e.give(fileName(s), h)
	}
	return h, err
}

// open returns a copy of what was inherited as a file, or nil.
func (e *engine) open(k sockets.Key, name string) (sockets.Handle, error) {
	f, err := e.tf.File(name)
	if err != nil || f == nil {
		return nil, err
	}
	defer f.Close() // we take a copy that os.File has not touched
	fd, err := fdx.Dup(f)
	if err != nil {
		return nil, err
	}
	return sockets.Open(k, fd)
}

// upgrade starts a successor. It returns nil when that is ready in tableflip's
// sense, or why it is not: the child's end, for one, or that of the engine.
func (e *engine) upgrade() error {
	err := e.tf.Upgrade()
	for notHeard(err) {
		time.Sleep(time.Millisecond)
		err = e.tf.Upgrade()
	}
	return err
}

// notHeard reports whether tableflip refuses to upgrade because its goroutine
// has not heard yet what we know: that Ready was called, or that the parent has
// ended, which WaitForParent tells first (v1.2.3, newParent and run).
func notHeard(err error) bool {
	return err != nil && (err.Error() == "process is not ready yet" || err.Error() == "parent hasn't exited")
}

// ready closes what was inherited and not asked for, and tells the parent that
// we have committed. A parent that died meanwhile is no reason to fail.
func (e *engine) ready() error {
	err := e.tf.Ready()
	if errors.Is(err, syscall.EPIPE) || err != nil && strings.Contains(err.Error(), syscall.EPIPE.Error()) {
		return nil // tableflip wraps with %s: the text is all there is
	}
	return err
}

// waitForParent waits until the process before us has ended: tableflip starts
// no successor earlier.
func (e *engine) waitForParent(ctx context.Context) error {
	err := e.tf.WaitForParent(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_ = err // how it ended is its own affair
	return nil
}

// stop ends tableflip's goroutine. Unless a successor of tableflip's has
// committed, it removes the paths of all unix sockets that it knows, so it is
// only for a process that owns them then. In any other that has such sockets (a
// successor that was rolled back, a process that was taken over by one that it
// has not started, one of whose unix sockets systemd keeps for the next process)
// tableflip's goroutine has to stay until the process ends.
func (e *engine) stop() {
	e.tf.Stop()
	<-e.tf.Exit()
}
