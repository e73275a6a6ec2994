package session

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// ErrMismatch says that a descriptor is not what the manifest says it is.
var ErrMismatch = errors.New("descriptor does not match the manifest")

// verifyBlob compares a state blob with its entry in the manifest, and makes sure that
// it is sealed: no process can change or truncate it while it is read.
func verifyBlob(b Blob, fd int) error {
	sealed, err := fdx.Sealed(fd)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if !sealed {
		return fmt.Errorf("%w: not a sealed file", ErrMismatch)
	}
	fi, err := b.File.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if uint64(fi.Size()) != b.Size {
		return fmt.Errorf("%w: %d bytes, want %d", ErrMismatch, fi.Size(), b.Size)
	}
	return nil
}

// Verify compares a descriptor with its entry in the manifest: SO_DOMAIN,
// SO_TYPE, SO_PROTOCOL, SO_ACCEPTCONN and getsockname(2).
func Verify(e wire.Socket, fd int) error {
	if (e.Kind == wire.KindFile || e.Kind == wire.KindLane) && e.SockType == 0 {
		return nil // a file of any kind: there is nothing to compare
	}
	var buf [wire.MaxSockname]byte
	i, err := fdx.InfoInto(fd, buf[:])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	switch {
	case int32(i.Domain) != e.Domain:
		return fmt.Errorf("%w: SO_DOMAIN %d, want %d", ErrMismatch, i.Domain, e.Domain)
	case int32(i.Type) != e.SockType:
		return fmt.Errorf("%w: SO_TYPE %d, want %d", ErrMismatch, i.Type, e.SockType)
	case int32(i.Protocol) != e.Protocol:
		return fmt.Errorf("%w: SO_PROTOCOL %d, want %d", ErrMismatch, i.Protocol, e.Protocol)
	case i.Listening != e.Listening:
		return fmt.Errorf("%w: SO_ACCEPTCONN %t, want %t", ErrMismatch, i.Listening, e.Listening)
	case !bytes.Equal(i.Sockname, e.Sockname):
		return fmt.Errorf("%w: bound to % x, want % x", ErrMismatch, i.Sockname, e.Sockname)
	}
	return nil
}
