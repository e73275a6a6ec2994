package inherit

import (
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/cloudflare/tableflip"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// The names of files that are no sockets of the program.
const (
	controlName      = "baton.control"      // the control socket
	conversationName = "baton.conversation" // a descriptor slot with the successor's end of the conversation
)

// plain reports whether tableflip has a socket by its network and address. Others
// are files under a name of ours.
func plain(e *wire.Socket) bool {
	return (e.Kind == wire.KindListener || e.Kind == wire.KindPacket) && e.Name == "" && e.Shard == 0
}

// fileName is the name under which tableflip has what is not plain.
func fileName(e *wire.Socket) string {
	switch {
	case e.Kind == wire.KindControl:
		return controlName
	case e.Kind == wire.KindFile && e.Shard == 0:
		return e.Name
	}
	return strings.Join([]string{"baton.socket", strconv.Itoa(int(e.Kind)), e.Name, e.Network, e.Address, strconv.Itoa(int(e.Shard))}, "|")
}

// Open returns the inherited socket or file that s describes, or nil.
func (e *Engine) Open(s *wire.Socket) (sockets.Handle, error) {
	e.notePath(s)
	h, err := e.open(s)
	if err != nil || h == nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.opened[fileName(s)] = h
	return h, nil
}

func (e *Engine) open(s *wire.Socket) (sockets.Handle, error) {
	switch {
	case plain(s) && s.Kind == wire.KindListener:
		ln, err := e.tf.Listener(s.Network, s.Address)
		if ln == nil {
			return nil, err
		}
		return sockets.HandleOf(ln, err)
	case plain(s):
		pc, err := e.tf.PacketConn(s.Network, s.Address)
		if pc == nil {
			return nil, err
		}
		return sockets.HandleOf(pc, err)
	}
	f, err := e.tf.File(fileName(s))
	if err != nil || f == nil {
		return nil, err
	}
	defer f.Close() // os.File has made it blocking; the copy is not touched
	fd, err := fdx.Dup(f)
	if err != nil {
		return nil, err
	}
	return sockets.Open(sockets.KeyOf(s), fd)
}

// Add has successors inherit h, which s describes, from now on.
func (e *Engine) Add(s *wire.Socket, h sockets.Handle) error {
	e.notePath(s)
	if e.passesOn(s, h) {
		return nil
	}
	if plain(s) {
		switch h := h.(type) {
		case tableflip.Listener:
			return e.tf.AddListener(s.Network, s.Address, h)
		case tableflip.PacketConn:
			return e.tf.AddPacketConn(s.Network, s.Address, h)
		}
	}
	fd, err := fdx.Dup(h)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), fileName(s))
	defer f.Close() // tableflip takes a copy of its own
	return e.tf.AddFile(fileName(s), f)
}

// passesOn reports whether tableflip has h under its name already. Add asks once for
// each socket: the next of that name is another.
func (e *Engine) passesOn(s *wire.Socket, h sockets.Handle) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	opened, ok := e.opened[fileName(s)]
	delete(e.opened, fileName(s))
	return ok && opened == h
}

// notePath notes a path that tableflip's Stop would remove.
func (e *Engine) notePath(s *wire.Socket) {
	if plain(s) && strings.HasPrefix(s.Network, "unix") && !strings.HasPrefix(s.Address, "@") {
		e.paths.Store(true)
	}
}

// Forget closes the copy of a socket that tableflip has. tableflip has no call for
// that: a file under the same name replaces the socket, and the garbage collector
// closes what was replaced. Without it a socket that its user has closed would queue
// connections that no process accepts.
func (e *Engine) Forget(s *wire.Socket) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close() // tableflip takes a copy
	switch {
	case plain(s) && s.Kind == wire.KindListener:
		err = e.tf.AddListener(s.Network, s.Address, placeholder{null})
	case plain(s):
		err = e.tf.AddPacketConn(s.Network, s.Address, placeholder{null})
	default:
		err = e.tf.AddFile(fileName(s), null)
	}
	runtime.GC()
	return err
}

// A placeholder takes the place of a socket in tableflip's table.
type placeholder struct{ *os.File }

func (placeholder) Accept() (net.Conn, error)              { return nil, net.ErrClosed }
func (placeholder) Addr() net.Addr                         { return &net.UnixAddr{} }
func (placeholder) LocalAddr() net.Addr                    { return &net.UnixAddr{} }
func (placeholder) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, net.ErrClosed }
func (placeholder) WriteTo([]byte, net.Addr) (int, error)  { return 0, net.ErrClosed }
