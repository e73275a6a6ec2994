package handoff

import (
	"context"
	"io"
	"os"
)

// ProvideState has write write a state blob, which the successor gets by
// [Upgrader.State] under the same name. write is called once in each upgrade, from a
// goroutine of the Upgrader's, while this process still serves. It writes to w as much
// as it likes, and must return when ctx ends. An error of it fails the upgrade.
//
// write replaces the one that was there under that name; nil removes it. An upgrade
// that is under way does not notice.
func (u *Upgrader) ProvideState(name string, write func(ctx context.Context, w io.Writer) error) {
	u.providers.Provide(name, write)
}

// State returns the state blob that the predecessor has written under name: an
// open file at its start, sealed against changes, in memory (memfd_create(2)).
// The caller closes it. The error matches [os.ErrNotExist] if there is none, if
// it was fetched before, or if the upgrade is committed: the commit closes what
// the program has not fetched.
func (u *Upgrader) State(name string) (*os.File, error) { return u.received.Take(name) }
