package handoff_test

import (
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestBatch reads and writes several datagrams at once, from Ready on.
func TestBatch(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		if address[0] == '[' {
			testenv.Need(t, "ipv6")
		}
		up := newUpgrader(t, handoff.Config{})
		pc, err := up.ListenPacket(t.Context(), "udp", address)
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("udp", pc.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for _, text := range []string{"one", "two"} {
			if _, err := client.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		read := func() (got []ipv4.Message, err error) {
			ms := make([]ipv4.Message, 4)
			for i := range ms {
				ms[i].Buffers = [][]byte{make([]byte, 10)}
			}
			n, err := pc.ReadBatch(ms, 0)
			return ms[:n], err
		}
		if err := pc.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if got, err := read(); err == nil {
			t.Errorf("%d datagrams before Ready", len(got))
		}
		if err := errors.Join(up.Ready(), pc.SetReadDeadline(time.Now().Add(patience))); err != nil {
			t.Fatal(err)
		}
		var texts string
		for texts != "onetwo" {
			got, err := read()
			if err != nil {
				t.Fatalf("%q, then %v", texts, err)
			}
			for i := range got {
				m := &got[i]
				text := m.Buffers[0][:m.N]
				texts += string(text)
				m.Buffers, m.OOB = [][]byte{text}, nil
			}
			if n, err := pc.WriteBatch(got, 0); n != len(got) || err != nil {
				t.Fatalf("WriteBatch() = %d, %v, want %d", n, err, len(got))
			}
		}
		answer := make([]byte, 10)
		if err := client.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if n, err := client.Read(answer); string(answer[:n]) != "one" || err != nil {
			t.Errorf("answer %q, %v", answer[:n], err)
		}
		unix, err := up.ListenPacket(t.Context(), "unixgram", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.ReadBatch(make([]ipv4.Message, 1), 0); !errors.Is(err, handoff.ErrUnsupported) {
			t.Errorf("ReadBatch() of a unixgram socket = %v, want ErrUnsupported", err)
		}
	}
}
