package servers_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

// A witness stands between an HTTP/2 client and a service, passes every byte
// on, and sees which requests were sent and which of them the service has lost:
// those without an answer when it closed the connection, and those beyond the
// last stream of its GOAWAY. A client's own count is of another kind: h2load
// queues requests after GOAWAY, never sends them, and calls them failed.
type witness struct {
	tb   testing.TB
	ln   net.Listener
	to   string
	done sync.WaitGroup

	mu         sync.Mutex
	sent, lost int
}

func newWitness(tb testing.TB, to string) *witness {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	w := &witness{tb: tb, ln: ln, to: to}
	w.done.Go(w.acceptAll) // ends with ln
	tb.Cleanup(func() { w.stop() })
	return w
}

func (w *witness) addr() string { return w.ln.Addr().String() }

// stop waits for the end of all connections, and returns how many requests
// were sent, and how many of these were lost.
func (w *witness) stop() (sent, lost int) {
	_ = w.ln.Close() // the second time for a test that has failed
	w.done.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent, w.lost
}

func (w *witness) acceptAll() {
	for {
		c, err := w.ln.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", w.to)
		if err != nil {
			w.tb.Error(err)
			_ = c.Close()
			continue
		}
		w.done.Go(func() { // ends with both sides
			defer c.Close()
			defer s.Close()
			w.serve(c.(*net.TCPConn), s.(*net.TCPConn))
		})
	}
}

func (w *witness) serve(client, service *net.TCPConn) {
	var (
		mu    sync.Mutex
		open  = make(map[uint32]bool)
		last  = uint32(1<<31 - 1) // the last stream that the service will answer
		first = true              // neither side has ended
	)
	// ended notes the end of a side: what the client leaves is its own affair.
	ended := func(who *net.TCPConn) {
		mu.Lock()
		defer mu.Unlock()
		for id := range open {
			if first && who == service || id > last {
				delete(open, id)
				w.count(&w.lost)
			}
		}
		first = false
	}
	var sides sync.WaitGroup
	sides.Go(func() {
		w.pass(client, service, http2.ClientPreface, func(f http2.Frame) {
			if h, ok := f.(*http2.HeadersFrame); ok {
				mu.Lock()
				open[h.StreamID] = true
				mu.Unlock()
				w.count(&w.sent)
			}
		}, ended)
	})
	sides.Go(func() {
		w.pass(service, client, "", func(f http2.Frame) {
			over := false
			switch f := f.(type) {
			case *http2.HeadersFrame:
				over = f.StreamEnded()
			case *http2.DataFrame:
				over = f.StreamEnded()
			case *http2.GoAwayFrame:
				mu.Lock()
				last = min(last, f.LastStreamID)
				mu.Unlock()
			}
			if over {
				mu.Lock()
				delete(open, f.Header().StreamID)
				mu.Unlock()
			}
		}, ended)
	})
	sides.Wait()
}

func (w *witness) count(n *int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*n++
}

// pass copies from one side to the other. It records each frame before it passes the
// frame on, so before any answer. It also records which side has ended before the other
// side can notice: if a client closes in the middle of its answers, the first sign may
// be a failed Write to it.
func (w *witness) pass(from, to *net.TCPConn, preface string, seen func(http2.Frame), ended func(who *net.TCPConn)) {
	in := bufio.NewReader(from)
	var raw bytes.Buffer // read and not passed on yet
	f := http2.NewFramer(nil, io.TeeReader(in, &raw))
	_, err := io.CopyN(&raw, in, int64(len(preface)))
	for err == nil {
		var frame http2.Frame
		if frame, err = f.ReadFrame(); err == nil {
			seen(frame)
			if _, werr := raw.WriteTo(to); werr != nil {
				ended(to)
				_ = from.SetLinger(0) // what was a reset is one
				_ = from.Close()
				return
			}
		}
	}
	ended(from)
	_, _ = raw.WriteTo(to) // part of a frame
	var ne net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		_ = to.CloseWrite() // the other side may be gone
	case errors.As(err, &ne):
		_ = to.SetLinger(0)
		_ = to.Close()
	default:
		w.tb.Errorf("frame: %v", err)
		_ = to.Close()
	}
}
