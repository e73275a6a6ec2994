package handoffhttp

import (
	"encoding/binary"
	"errors"
	"time"
)

// A movedState goes with a connection that moves. Its encoding is that of the
// name "http/1", under which connections move; a change is another name.
type movedState struct {
	idle   bool          // it has had a request; or else it is new
	silent time.Duration // since its last response, or since it was accepted
	strip  uint8         // line ends that may be dropped before the next request
	begun  []byte        // of the next request, read from the connection
}

const flagIdle = 1

var errState = errors.New("handoffhttp: malformed state of a connection")

// encode returns flags, strip, silent in milliseconds as a uvarint, begun.
func (st movedState) encode() []byte {
	var flags byte
	if st.idle {
		flags |= flagIdle
	}
	b := append(make([]byte, 0, 2+binary.MaxVarintLen64+len(st.begun)), flags, st.strip)
	b = binary.AppendUvarint(b, uint64(max(0, st.silent.Milliseconds())))
	return append(b, st.begun...)
}

// decodeState is the reverse of encode.
func decodeState(b []byte) (movedState, error) {
	if len(b) < 3 || b[0]&^flagIdle != 0 || b[1] > maxStrip {
		return movedState{}, errState
	}
	ms, n := binary.Uvarint(b[2:])
	const maxSilent = uint64(100 * 365 * 24 * time.Hour / time.Millisecond)
	begun := b[min(len(b), 2+max(n, 0)):]
	if n <= 0 || ms > maxSilent || len(begun) > len(conn{}.begun) {
		return movedState{}, errState
	}
	return movedState{idle: b[0]&flagIdle != 0, strip: b[1], silent: time.Duration(ms) * time.Millisecond, begun: begun}, nil
}
