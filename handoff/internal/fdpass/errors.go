package fdpass

import "errors"

// Errors of this package, matched by errors.Is.
var (
	// ErrTruncated says that not all descriptors of a frame arrived. Those that
	// did are closed; the frame is read to its end, so the stream stays usable.
	// The error matches [syscall.EMFILE] too if RLIMIT_NOFILE of this process is
	// the cause; otherwise the peer sent fewer than it said.
	ErrTruncated = errors.New("fdpass: descriptors missing")

	// ErrTooLarge says that a frame exceeds [MaxPayload] or [MaxFDs]. From
	// [Conn.Recv] it ends reading for good.
	ErrTooLarge = errors.New("fdpass: frame too large")

	// ErrMalformed says that descriptors came that no header announced. It ends
	// reading for good.
	ErrMalformed = errors.New("fdpass: malformed frame")
)
