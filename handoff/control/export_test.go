package control

import (
	"errors"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// IsPeerRefused is for programs of the tests that print what they found.
func IsPeerRefused(err error) bool { return errors.Is(err, handoff.ErrPeerRefused) }

// Decode decodes a message of a server, all parts of it.
func Decode(m wire.Message) error {
	a, _, err := decode(m)
	if err != nil {
		return err
	}
	var s handoff.Status
	if _, err := decodeInto(a.Status, &s); err != nil {
		return err
	}
	_, err = pass(a, nil, func(handoff.Event) {}, func(Linger) {})
	return err
}
