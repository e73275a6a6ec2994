package servers_test

import (
	"bufio"
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
		first = true              // nobody has ended
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
		w.pass(client, service, true, func(f http2.Frame) {
			if h, ok := f.(*http2.HeadersFrame); ok {
				mu.Lock()
				open[h.StreamID] = true
				mu.Unlock()
				w.count(&w.sent)
			}
		})
		ended(client)
	})
	sides.Go(func() {
		w.pass(service, client, false, func(f http2.Frame) {
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
		})
		ended(service)
	})
	sides.Wait()
}

func (w *witness) count(n *int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*n++
}

// pass copies from one side to the other and shows the frames, which are on
// their way by then.
func (w *witness) pass(from, to *net.TCPConn, preface bool, seen func(http2.Frame)) {
	pr, pw := io.Pipe()
	var reader sync.WaitGroup
	reader.Go(func() { // ends with pw
		r := bufio.NewReader(pr)
		if preface {
			if _, err := r.Discard(len(http2.ClientPreface)); err != nil {
				return
			}
		}
		f := http2.NewFramer(nil, r)
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					w.tb.Errorf("frame: %v", err)
				}
				_, _ = io.Copy(io.Discard, r) // the copy goes on
				return
			}
			seen(frame)
		}
	})
	_, err := io.Copy(to, io.TeeReader(from, pw))
	_ = pw.Close() // never fails
	reader.Wait()
	if err != nil {
		_ = to.SetLinger(0) // what was a reset is one
		_ = to.Close()
		return
	}
	_ = to.CloseWrite() // the other side may be gone
}
