package handoff

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// A keeper sees to it that the path of the control socket leads there: while it does not,
// no tool and no successor finds this process. From New on its goroutine, keepControl, is
// the only one that exchanges the socket or asks where it is bound; the predecessor's side
// of an upgrade, during which the keeper rests, passes it on.
type keeper struct {
	requests chan func()
	ended    chan struct{} // closed when it takes no more

	path string      // of the control socket; empty if it is not known
	root fs.FileInfo // the root folder at the start; nil if it is not known
}

func newKeeper() *keeper { return &keeper{requests: make(chan func()), ended: make(chan struct{})} }

// do has the keeper's goroutine run f, and waits for that. It does nothing when this
// process is to end.
func (k *keeper) do(f func()) {
	done := make(chan struct{})
	select {
	case k.requests <- func() { defer close(done); f() }:
		<-done
	case <-k.ended:
	}
}

// keepControl is the goroutine of the keeper. It looks at the path at intervals while no
// upgrade is under way.
func (u *Upgrader) keepControl() {
	defer close(u.keeper.ended)
	u.keeper.path = u.controlPath()
	u.keeper.root, _ = os.Stat("/")
	// Less than the time for which a process waits that finds no path (operate.OpenSole).
	tick := time.NewTicker(u.cfg.hang / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if life := u.life(); life.Done() || life.Upgrading || u.successor != nil && !life.Owner {
				continue // the other process looks, or a manifest describes the socket
			}
			u.remakeControl()
		case f := <-u.keeper.requests:
			f()
		case <-u.done:
			return
		}
	}
}

// lookAtControl has the keeper look at the path now.
func (u *Upgrader) lookAtControl() { u.keeper.do(u.remakeControl) }

// ownControl has this process answer at the control socket, and makes that again if its
// path was removed meanwhile.
func (u *Upgrader) ownControl() (err error) {
	u.keeper.do(func() {
		err = u.introduceControl()
		u.control.Open()
		u.remakeControl()
	})
	return err
}

// controlPath returns the path of the control socket, or "" if none is known: a process
// that has dialled may see it elsewhere than its predecessor does, as in another container.
func (u *Upgrader) controlPath() string {
	if u.control == nil || u.control.Entry.PathIno == 0 {
		return ""
	}
	e := &u.control.Entry
	own, _ := operate.Locate(u.cfg.Name, u.cfg.ControlSocket) // New has failed with its error
	for _, path := range []string{own, e.Bound} {
		if here, err := sockets.InPlace(e, path); here && err == nil {
			return path
		}
	}
	if u.successor != nil && u.via == wire.ViaDial {
		if _, err := os.Lstat(own); errors.Is(err, fs.ErrNotExist) {
			return own // removed since this process has dialled
		}
		return ""
	}
	return e.Bound // removed, and the predecessor is of a version that does not make it again
}

// remakeControl makes the control socket again if its path does not lead there.
func (u *Upgrader) remakeControl() {
	path := u.keeper.path
	if now, err := os.Stat("/"); path == "" || err == nil && u.keeper.root != nil && !os.SameFile(u.keeper.root, now) {
		return // after a chroot(2) this process does not see the path
	}
	ln, err := operate.Remake(path, func() (bool, error) { return sockets.InPlace(&u.control.Entry, path) }, u.log)
	if err == nil && ln != nil {
		err = u.exchangeControl(ln)
	}
	text := ""
	if err != nil {
		text = fmt.Sprintf("no tool or successor reaches this process: %v", err)
	}
	said := ""
	u.owner.ask(func(s *state) { said, s.lost = s.lost, text })
	switch {
	case err != nil && text != said:
		u.log.Error("the path of the control socket does not lead to this process", "path", path, "error", err)
	case err == nil && ln != nil:
		u.log.Warn("the path of the control socket had been removed: it is there again", "path", path)
	}
}

// exchangeControl makes ln the control socket, of which it takes ownership.
func (u *Upgrader) exchangeControl(ln *net.UnixListener) error {
	if err := u.control.Exchange(ln, u.done); err != nil {
		return err
	}
	if u.engine == nil || u.cfg.Mode != Inherit {
		return nil
	}
	return errors.Join(u.engine.Forget(&u.control.Entry), u.engine.Add(&u.control.Entry, u.control.Handle()))
}
