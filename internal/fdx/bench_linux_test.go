package fdx_test

import (
	"net"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// BenchmarkConn makes a connection of a descriptor, which it duplicates before
// and closes after.
func BenchmarkConn(b *testing.B) {
	ln := listenTCP(b)
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer peer.Close()
	fd, err := fdx.Dup(peer.(*net.TCPConn))
	if err != nil {
		b.Fatal(err)
	}
	closeAtEnd(b, fd)
	for b.Loop() {
		c, err := fdx.Conn(dup(b, fd), "bench")
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
