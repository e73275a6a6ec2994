package control

import (
	"errors"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// IsPeerRefused is for programs of the tests that print what they found.
func IsPeerRefused(err error) bool { return errors.Is(err, handoff.ErrPeerRefused) }

// Decode decodes a message of a server.
func Decode(m wire.Message) error {
	_, _, err := decode(m)
	return err
}
