package handoff

import (
	"context"
	"fmt"
	"os"

	"github.com/seed-11c92bf9/baton/handoff/internal/rebind"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// bindAnew makes a unix listener for k in place of the predecessor's, to which its path
// does not lead any more: it was removed, or is below a link that leads elsewhere. The new
// one has the path at once, and listens from the commit on; the predecessor empties the
// old one then, as each that it leaves. It returns nil where there is no such listener, or
// the path can't be had, as where another server has it: then that of the predecessor
// stays.
func (u *Upgrader) bindAnew(ctx context.Context, k sockets.Key) *sockets.Socket {
	e := u.table.Astray(k)
	if e == nil || !u.seesPaths() {
		return nil
	}
	name := e.Network + " " + e.Bound
	o, err := rebind.ReserveUnix(ctx, k, &u.cfg.listenConfig)
	if err != nil {
		u.noteAstray(fmt.Sprintf("the path of %s does not lead to that listener, and can't be bound anew: %v", name, err))
		return nil
	}
	s, err := sockets.New(k, o.Handle, &u.cfg.listenConfig, nil)
	if err != nil {
		u.noteAstray(fmt.Sprintf("the path of %s does not lead to that listener, and can't be bound anew: %v", name, err))
		return nil
	}
	s.Defer()
	u.mover.AddLate(s, o)
	u.noteAstray("the path of " + name + " did not lead to that listener: the successor has bound it anew")
	return s
}

// noteAstray has the report say a text.
func (u *Upgrader) noteAstray(text string) {
	u.log.Warn(text)
	u.owner.ask(func(s *state) { s.astray = append(s.astray, text) })
}

// seesPaths reports whether a path means the same file to this process and its
// predecessor, which is not so in another container.
func (u *Upgrader) seesPaths() bool {
	if u.via != wire.ViaDial {
		return true
	}
	here, err := os.Readlink("/proc/self/ns/mnt")
	there, terr := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", u.welcome.PID))
	return err == nil && terr == nil && here == there
}
