package fdpass_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
)

// FuzzRecv sends bytes without descriptors and compares what Recv makes of them
// with a plain reading of the format.
func FuzzRecv(f *testing.F) {
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 100<<10 {
			return // must fit into the socket's buffer
		}
		raw, c := pair(t)
		if len(stream) > 0 {
			send(t, raw, stream)
		}
		if err := raw.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		for rest := stream; ; {
			var want error
			var payload []byte
			var typ uint16
			switch {
			case len(rest) == 0:
				want = io.EOF
			case len(rest) < 8:
				want = io.ErrUnexpectedEOF
			default:
				size, fds := binary.BigEndian.Uint32(rest), binary.BigEndian.Uint16(rest[6:])
				typ = binary.BigEndian.Uint16(rest[4:])
				switch rest = rest[8:]; {
				case size > fdpass.MaxPayload || fds > fdpass.MaxFDs:
					want = fdpass.ErrTooLarge
				case int(size) > len(rest):
					want = io.ErrUnexpectedEOF
				default:
					payload, rest = rest[:size], rest[size:]
					if fds > 0 {
						want = fdpass.ErrTruncated
					}
				}
			}
			got, err := c.Recv()
			if !errors.Is(err, want) || (want == nil && err != nil) {
				t.Fatalf("Recv = %v, want %v", err, want)
			}
			if err == nil && (got.Type != typ || !bytes.Equal(got.Payload, payload) || got.FDs != nil) {
				t.Fatalf("Recv = %+v, want type %d, %x", got, typ, payload)
			}
			if err != nil && !errors.Is(err, fdpass.ErrTruncated) {
				return
			}
		}
	})
}
