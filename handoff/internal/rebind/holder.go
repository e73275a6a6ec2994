package rebind

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/procs"
)

// A Holder is another process that may have duplicates of this process's sockets.
type Holder struct {
	m       *Mover
	process *procs.Pidfd  // nil: it can't be watched
	stop    func()        // ends the watch
	ended   chan struct{} // closed when the process has ended
}

// A holding is what the Mover knows of a Holder.
type holding struct {
	*Holder
	pid   int // 0 if it is not known
	kinds []wire.SocketKind
}

func (h *holding) has(kind wire.SocketKind) bool { return slices.Contains(h.kinds, kind) }

// Hold notes that another process may have duplicates of the sockets of some
// kinds, until Release says otherwise or the process has ended. It owns pidfd,
// which has none or one descriptor; without one, only Release counts.
func (m *Mover) Hold(pidfd []int, kinds ...wire.SocketKind) *Holder {
	var p *procs.Pidfd
	if len(pidfd) > 0 {
		p, _ = procs.NewPidfd(pidfd[0]) // nil after an error
	}
	return m.hold(0, p, kinds)
}

func (m *Mover) hold(pid int, p *procs.Pidfd, kinds []wire.SocketKind) *Holder {
	ctx, stop := context.WithCancel(context.Background())
	h := &Holder{m: m, process: p, stop: stop, ended: make(chan struct{})}
	m.mu.Lock()
	m.holders = append(m.holders, &holding{h, pid, slices.Clone(kinds)})
	m.mu.Unlock()
	if p != nil {
		m.watchers.Go(func() { // ends with the process, with the last Release, or with Close
			if p.Wait(ctx) == nil {
				close(h.ended)
				h.Release(wire.KindListener, wire.KindPacket)
			}
			_ = p.Close() // a copy
		})
	}
	return h
}

// Ended is closed when the process has ended, if that is seen before the last Release. It
// is nil for a process that can't be watched.
func (h *Holder) Ended() <-chan struct{} {
	if h.process == nil {
		return nil
	}
	return h.ended
}

// HoldProcess is Hold for the process pid, which may be held already: it has one
// Holder, however often it fails as a successor.
func (m *Mover) HoldProcess(pid int, kinds ...wire.SocketKind) *Holder {
	m.mu.Lock()
	i := slices.IndexFunc(m.holders, func(h *holding) bool { return pid > 0 && h.pid == pid })
	if i >= 0 {
		defer m.mu.Unlock()
		m.holders[i].kinds = slices.Clone(kinds)
		return m.holders[i].Holder
	}
	m.mu.Unlock()
	p, _ := procs.OpenPidfd(pid) // nil for a process of another PID namespace
	return m.hold(pid, p, kinds)
}

// Release says that the process has no duplicate of the sockets of these kinds.
func (h *Holder) Release(kinds ...wire.SocketKind) {
	if h.m.releaseHolder(h, kinds) {
		h.stop()
	}
}

// releaseHolder is Release. It reports whether the process has no duplicate of any.
func (m *Mover) releaseHolder(h *Holder, kinds []wire.SocketKind) (last bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changedLocked()
	i := slices.IndexFunc(m.holders, func(o *holding) bool { return o.Holder == h })
	if i < 0 {
		return true
	}
	o := m.holders[i]
	o.kinds = slices.DeleteFunc(o.kinds, func(k wire.SocketKind) bool { return slices.Contains(kinds, k) })
	if last = len(o.kinds) == 0; last {
		m.holders = slices.Delete(m.holders, i, i+1)
	}
	return last
}

// Released has say tell the successor that this process has closed its duplicates
// of the sockets of a kind. say borrows the pidfds of the processes that still have
// some. Where one of them can't be watched, Released returns an error in its place:
// the successor has to serve the shared sockets on.
func (m *Mover) Released(kind wire.SocketKind, say func(holders []int)) error {
	m.mu.Lock()
	holders := slices.DeleteFunc(slices.Clone(m.holders), func(h *holding) bool { return !h.has(kind) })
	m.mu.Unlock()
	var pidfds []int
	defer func() { _ = fdx.Close(pidfds...) }() // duplicates
	for _, h := range holders {
		if h.process == nil {
			return errors.New("this process can't watch a process that may have duplicates of the sockets")
		}
		fd, err := fdx.Dup(h.process)
		switch {
		case errors.Is(err, os.ErrClosed): // it has ended since
		case err != nil:
			return err
		default:
			pidfds = append(pidfds, fd)
		}
	}
	say(pidfds)
	return nil
}
