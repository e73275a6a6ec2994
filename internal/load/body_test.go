package load_test

import (
	"io"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/load"
)

func TestBody(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(*load.Body) error{
		"Read":    func(b *load.Body) error { _, err := b.Read(make([]byte, 1)); return err },
		"WriteTo": func(b *load.Body) error { _, err := b.WriteTo(io.Discard); return err },
	} {
		b := load.NewBody([]byte("x"))
		if err := b.Close(); err != nil || b.Sent() {
			t.Errorf("Close() = %v, sent %t, want nil and false", err, b.Sent())
		}
		if err := send(b); err != nil || !b.Sent() {
			t.Errorf("%s() = %v, sent %t, want nil and true", name, err, b.Sent())
		}
	}
}
