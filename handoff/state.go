package handoff

import (
	"context"
	"io"
	"os"
)

// ProvideState registers a function that writes a state blob, which the successor gets by
// [Upgrader.State] under the same name. The Upgrader calls write once in each upgrade,
// from a goroutine of its own, while this process still serves. write may write any
// number of bytes to w, and must return when ctx ends. If it returns an error, the
// upgrade fails.
//
// write replaces the function that was registered under that name; nil removes it. An
// upgrade that is under way keeps the old one.
func (u *Upgrader) ProvideState(name string, write func(ctx context.Context, w io.Writer) error) {
	u.providers.Provide(name, write)
}

// State returns the state blob that the predecessor has written under name: an
// open file at its start, sealed against changes, in memory (memfd_create(2)).
// The caller closes it. The error matches [os.ErrNotExist] if there is none, if an
// earlier call has returned it, or if the upgrade is committed: the commit closes the
// blobs that the program has not fetched.
func (u *Upgrader) State(name string) (*os.File, error) { return u.received.Take(name) }
