package witness_test

import (
	"io"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/seed-11c92bf9/baton/integration/internal/witness"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) { testmain.Run(m) }

// TestCount has services that do to three requests what a service can do.
func TestCount(t *testing.T) {
	t.Parallel()
	answer := func(id uint32) func(f *http2.Framer) error {
		return func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: []byte{0x88}})
		}
	}
	goAway := func(last uint32) func(f *http2.Framer) error {
		return func(f *http2.Framer) error { return f.WriteGoAway(last, http2.ErrCodeNo, nil) }
	}
	reset := func(id uint32, code http2.ErrCode) func(f *http2.Framer) error {
		return func(f *http2.Framer) error { return f.WriteRSTStream(id, code) }
	}
	for _, c := range []struct {
		name string
		does []func(*http2.Framer) error
		want witness.Count
	}{
		{"answers all", []func(*http2.Framer) error{answer(1), answer(3), answer(5)}, witness.Count{Connections: 1, Sent: 3, Answered: 3}},
		{"refuses by GOAWAY", []func(*http2.Framer) error{answer(1), goAway(1)}, witness.Count{Connections: 1, Sent: 3, Answered: 1, Refused: 2}},
		{"refuses by a reset", []func(*http2.Framer) error{answer(1), reset(3, http2.ErrCodeRefusedStream), answer(5)}, witness.Count{Connections: 1, Sent: 3, Answered: 2, Refused: 1}},
		{"resets", []func(*http2.Framer) error{answer(1), reset(3, http2.ErrCodeInternal), answer(5)}, witness.Count{Connections: 1, Sent: 3, Answered: 2, Lost: 1}},
		{"closes", []func(*http2.Framer) error{answer(5)}, witness.Count{Connections: 1, Sent: 3, Answered: 1, Lost: 2}},
		{"answers nothing", nil, witness.Count{Connections: 1, Sent: 3, Lost: 3, Unused: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t)
			served := make(chan error, 1)
			go func() { served <- serve(ln, c.does) }() // ends with its one connection
			w, err := witness.New(ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close() // the second time it does nothing
			nc, err := net.Dial("tcp", w.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
				t.Fatal(err)
			}
			f := http2.NewFramer(nc, nil)
			for id := uint32(1); id <= 5; id += 2 {
				if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: []byte{0x82}}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.Copy(io.Discard, nc); err != nil {
				t.Fatal(err)
			}
			_ = nc.Close()
			got, err := w.Close()
			if err := <-served; err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("count (-want +got), %v:\n%s", err, diff)
			}
		})
	}
}

// TestUnreached has no service.
func TestUnreached(t *testing.T) {
	t.Parallel()
	ln := listen(t)
	_ = ln.Close()
	w, err := witness.New(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close() // the second time it does nothing
	nc, err := net.Dial("tcp", w.Addr())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, nc) // an end, or a reset
	_ = nc.Close()
	want := witness.Count{Connections: 1, Unreached: 1}
	if got, err := w.Close(); err != nil || got != want {
		t.Errorf("count %+v, %v, want %+v", got, err, want)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// serve reads the preface and three requests of one connection, and does what it should.
func serve(ln net.Listener, does []func(*http2.Framer) error) error {
	nc, err := ln.Accept()
	if err != nil {
		return err
	}
	defer nc.Close()
	if _, err := io.CopyN(io.Discard, nc, int64(len(http2.ClientPreface))); err != nil {
		return err
	}
	f := http2.NewFramer(nc, nc)
	for range 3 {
		if _, err := f.ReadFrame(); err != nil {
			return err
		}
	}
	for _, do := range does {
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}
