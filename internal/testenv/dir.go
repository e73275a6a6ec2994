package testenv

import (
	"os"
	"testing"
)

// ShortDir is t.TempDir with a name that leaves room for a unix socket's, of
// which unix(7) allows 108 bytes.
func ShortDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "baton")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
