package load

import (
	"bytes"
	"io"
	"sync/atomic"
)

// Body is the body of a request that must not be sent twice: it knows whether
// any of it was sent. net/http can't rewind it.
type Body struct {
	r    *bytes.Reader
	sent atomic.Bool
}

// NewBody returns a body of these bytes.
func NewBody(b []byte) *Body { return &Body{r: bytes.NewReader(b)} }

// Sent reports whether b was read from, to send it.
func (b *Body) Sent() bool { return b.sent.Load() }

// Read is that of [io.Reader].
func (b *Body) Read(p []byte) (int, error) {
	b.sent.Store(true)
	return b.r.Read(p)
}

// WriteTo is noted as Read is.
func (b *Body) WriteTo(w io.Writer) (int64, error) {
	b.sent.Store(true)
	return b.r.WriteTo(w)
}

// Close does nothing.
func (b *Body) Close() error { return nil }
