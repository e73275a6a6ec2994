package wire

import "errors"

// Errors of [Decode] and [Check], matched by errors.Is.
var (
	// ErrUnknownType says that this side does not know the type of a message.
	// The message may come from a newer version, and may be skipped.
	ErrUnknownType = errors.New("wire: unknown type of message")

	// ErrMalformed says that a payload breaks the rules of the encoding. The
	// peer does not speak this protocol.
	ErrMalformed = errors.New("wire: malformed message")

	// ErrTooLarge says that a message exceeds one of the limits of this package.
	ErrTooLarge = errors.New("wire: message exceeds a limit")
)
