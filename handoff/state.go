package handoff

import (
	"context"
	"io"
	"os"

	"github.com/seed-11c92bf9/baton/handoff/internal/stateblob"
)

// A StateProvider gives a successor what a process knows.
type StateProvider struct {
	// Write writes the state to w, of any size. It is called once an upgrade,
	// while this process still serves, from a goroutine of the upgrade's, and
	// must return when ctx ends. An error fails the upgrade. Required.
	Write func(ctx context.Context, w io.Writer) error
	// Failed is called when Write was called and the upgrade has failed, with
	// the reason: this process serves on. nil means nothing to do.
	Failed func(err error)
}

// ProvideState registers a state blob under a name, which the successor gets by
// [Upgrader.State]. A provider that is already registered under that name is
// replaced; one without Write is removed. It has no effect on an upgrade that
// is under way.
func (u *Upgrader) ProvideState(name string, p StateProvider) {
	u.providers.Provide(name, stateblob.Provider(p))
}

// State returns the state blob that the predecessor has written under name: an
// open file at its start, sealed against changes, in memory (memfd_create(2)).
// The caller closes it. The error matches [os.ErrNotExist] if there is none, if
// it was fetched before, or if the upgrade is committed: the commit closes what
// the program has not fetched.
func (u *Upgrader) State(name string) (*os.File, error) { return u.received.Take(name) }
