package handoff

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A MovedConn is a connection that a predecessor has passed on.
type MovedConn struct {
	// Conn is the open connection. The program that receives it owns it.
	Conn net.Conn
	// State is what the predecessor's program knows about the connection, bytes
	// that it has read and not used included.
	State []byte
	// Generation is the predecessor's.
	Generation uint64
}

// inboxes have the connections that predecessors send, by name, until the program
// receives them.
type inboxes struct {
	mu   sync.Mutex
	all  map[string]chan MovedConn
	sent bool // the predecessor knows the names

	received atomic.Uint64 // connections that the program has got
}

// Track counts c among the connections that Shutdown waits for, until it is
// closed, and closes it at the linger limit. A connection that [Listener.Accept]
// returns is tracked already: Track is for others, such as those of
// [Upgrader.Conns]. The result is c in a wrapper that has all methods of a
// *[net.TCPConn] or *[net.UnixConn], for any other those of [net.Conn] and
// SyscallConn, and NetConn, which returns c.
//
// Call Track before another goroutine can call Shutdown; otherwise Shutdown may not
// wait for the connection.
func (u *Upgrader) Track(c net.Conn) net.Conn { return u.conns.Track(c) }

// Hold is [Upgrader.Track] for a server that closes its connections itself and accepts
// from [Listener.Untracked]. The Upgrader calls open, which must not block, from any
// goroutine, for the number of connections in its reports. When [Upgrader.LingerExpired]
// is closed, the server closes its connections, and calls release within 10 s. cut has
// the number of connections that it closed by force, by reason. Shutdown waits for
// release. A second call of release has no effect.
func (u *Upgrader) Hold(open func() int) (release func(cut map[string]uint64)) {
	return u.conns.Hold(open).Release
}

// SendConn passes conn, with its state, to the successor, whose program gets it
// from Conns under the same name. It can be called once Done is closed by a
// commit, until Shutdown. The caller must not use conn meanwhile. state has to hold the
// bytes that the program has read from conn and not used; it may have up to 64 KiB.
//
// When SendConn returns nil, it has closed this process's copy of conn, which sends
// nothing to the client. [ErrInDoubt] says that the successor may have read from the
// connection, and then died, or did not answer before Shutdown. SendConn has closed conn
// then too, because two processes must not serve one connection. On any other error the
// caller still owns conn: [ErrNotTaken] if the successor takes no connections of that
// name, is short of descriptors, or has ended; [ErrNoSuccessor] before a commit;
// [ErrUnsupported] if conn has no descriptor (a TLS connection: package handofftls moves it).
func (u *Upgrader) SendConn(ctx context.Context, name string, conn net.Conn, state []byte) error {
	l, ph := u.successorLink(), u.life().Phase
	switch {
	case ph == lifecycle.Closed:
		return ErrClosed
	case ph != lifecycle.Lingering:
		return ErrNoSuccessor
	case l == nil:
		return fmt.Errorf("%w: it is a plain tableflip service", ErrNotTaken)
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%w: %T has no descriptor", ErrUnsupported, conn)
	}
	err := fdx.Borrow(sc, func(fd int) error { return l.Move(ctx, name, state, fd) })
	switch {
	case errors.Is(err, ErrInDoubt):
		u.conns.InDoubt()
		_ = conn.Close() // if the successor lives it has its own copy
		return err
	case errors.Is(err, ErrNotTaken):
		return err
	case err != nil:
		return fmt.Errorf("handoff: send connection: %w", err)
	}
	u.conns.Moved()
	_ = conn.Close() // our copy: close(2) of a duplicate sends nothing
	return nil
}

// Takes reports whether the successor is committed and takes connections under name, so
// that SendConn can succeed. The answer does not change after Done is closed.
func (u *Upgrader) Takes(name string) bool {
	l := u.successorLink()
	return l != nil && u.life().Phase == lifecycle.Lingering && l.Takes(name)
}

// Conns returns the channel of the connections that predecessors send under
// name. The channel is never closed; receive from it until Done is closed. A
// connection that the program does not receive stays with the predecessor.
//
// Ready sends the names to the predecessor. After Ready, Conns returns [ErrTooLate] for
// a new name. A name may have up to 255 bytes, and a program up to 253 names.
func (u *Upgrader) Conns(name string) (<-chan MovedConn, error) {
	late := u.life().Phase != lifecycle.Starting
	ch, err := u.inboxes.get(name, late)
	if err != nil {
		return nil, fmt.Errorf("handoff: connections %q: %w", name, err)
	}
	return ch, nil
}

func (in *inboxes) get(name string, late bool) (chan MovedConn, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if ch, ok := in.all[name]; ok {
		return ch, nil
	}
	switch {
	case late || in.sent:
		return nil, ErrTooLate
	case len(name) > wire.MaxName:
		return nil, fmt.Errorf("the name has %d bytes, the limit is %d", len(name), wire.MaxName)
	case len(in.all) == wire.MaxEntries:
		return nil, fmt.Errorf("%d names are the limit", wire.MaxEntries)
	}
	in.all[name] = make(chan MovedConn)
	return in.all[name], nil
}

// names returns all names. There is none to come.
func (in *inboxes) names() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sent = true
	return slices.Sorted(maps.Keys(in.all))
}

// deliver hands a connection to the program, and reports whether that took it.
// It owns fd.
func (u *Upgrader) deliver(generation uint64, name string, state []byte, fd int) bool {
	u.inboxes.mu.Lock()
	ch := u.inboxes.all[name]
	u.inboxes.mu.Unlock()
	if ch == nil { // the program has not asked for it; the predecessor keeps it
		if err := fdx.Close(fd); err != nil {
			u.log.Warn("did not take a connection from a predecessor", "name", name, "error", err)
		}
		return false
	}
	nc, err := fdx.Conn(fd, name)
	if err != nil {
		u.log.Warn("did not take a connection from a predecessor", "name", name, "error", err)
		return false
	}
	select {
	case ch <- MovedConn{Conn: nc, State: state, Generation: generation}:
		u.inboxes.received.Add(1)
		return true
	case <-u.done:
	case <-u.closing:
	}
	_ = nc.Close() // the predecessor keeps it
	return false
}
