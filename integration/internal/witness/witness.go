package witness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"
)

// A Count is what a Witness has seen.
type Count struct {
	Connections int `json:"connections"` // of the client
	Sent        int `json:"sent"`        // requests
	Answered    int `json:"answered"`    // to the end of the response
	// Refused are requests that the service has not taken: beyond the last stream of its
	// GOAWAY, or reset with REFUSED_STREAM. A client may send them again (RFC 9113,
	// section 8.7).
	Refused int `json:"refused"`
	// Lost are requests that the service has reset, or had not answered when it closed
	// the connection.
	Lost int `json:"lost"`
	// Unused are connections that the service closed before its first response.
	Unused int `json:"unused"`
	// Unreached are connections that the service did not accept.
	Unreached int `json:"unreached"`
}

// Failed returns how much of the client's work the service has failed.
func (c Count) Failed() int { return c.Refused + c.Lost + c.Unused + c.Unreached }

// A Witness stands between a client and a service.
type Witness struct {
	ln   net.Listener
	to   string
	done sync.WaitGroup

	mu    sync.Mutex
	count Count
	err   error
}

// New returns a Witness that connects its clients to an address. The caller closes it.
func New(to string) (*Witness, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &Witness{ln: ln, to: to}
	w.done.Go(w.acceptAll) // ends with ln
	return w, nil
}

// Addr is the address for clients.
func (w *Witness) Addr() string { return w.ln.Addr().String() }

// Close waits for the end of all connections and returns the count. The error says what
// was no HTTP/2. A second call returns the same.
func (w *Witness) Close() (Count, error) {
	_ = w.ln.Close() // the second time it is closed
	w.done.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count, w.err
}

func (w *Witness) acceptAll() {
	for {
		c, err := w.ln.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", w.to)
		if err != nil {
			w.add(func(n *Count) { n.Connections, n.Unreached = n.Connections+1, n.Unreached+1 })
			_ = c.Close() // nothing was read
			continue
		}
		w.done.Go(func() { // ends with both sides
			defer c.Close()
			defer s.Close()
			w.serve(c.(*net.TCPConn), s.(*net.TCPConn))
		})
	}
}

func (w *Witness) add(f func(*Count)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.count)
}

// A flow is what is known of one connection.
type flow struct {
	service *net.TCPConn

	mu    sync.Mutex
	count Count
	open  map[uint32]bool // without the end of a response
	top   uint32          // the client's last stream
	last  uint32          // the last stream that the service will answer
	first bool            // neither side has ended
}

// sent notes a frame of the client.
func (f *flow) sent(fr http2.Frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch fr := fr.(type) {
	case *http2.HeadersFrame:
		if fr.StreamID > f.top { // or else trailers
			f.top, f.open[fr.StreamID] = fr.StreamID, true
			f.count.Sent++
		}
	case *http2.RSTStreamFrame:
		delete(f.open, fr.StreamID) // the client's own affair
	}
}

// answered notes a frame of the service.
func (f *flow) answered(fr http2.Frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, over := fr.Header().StreamID, false
	switch fr := fr.(type) {
	case *http2.HeadersFrame:
		over = fr.StreamEnded()
	case *http2.DataFrame:
		over = fr.StreamEnded()
	case *http2.RSTStreamFrame:
		switch {
		case !f.open[id]:
		case fr.ErrCode == http2.ErrCodeRefusedStream:
			f.count.Refused++
		default:
			f.count.Lost++
		}
		delete(f.open, id)
	case *http2.GoAwayFrame:
		f.last = min(f.last, fr.LastStreamID)
	}
	if over && f.open[id] {
		delete(f.open, id)
		f.count.Answered++
	}
}

// ended notes the end of a side. What the client leaves is its own affair.
func (f *flow) ended(side *net.TCPConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.open {
		switch {
		case id > f.last:
			f.count.Refused++
		case f.first && side == f.service:
			f.count.Lost++
		default:
			continue
		}
		delete(f.open, id)
	}
	if f.first && side == f.service && f.count.Answered == 0 {
		f.count.Unused++
	}
	f.first = false
}

func (w *Witness) serve(client, service *net.TCPConn) {
	f := &flow{service: service, open: make(map[uint32]bool), last: 1<<31 - 1, first: true}
	var sides sync.WaitGroup
	sides.Go(func() { w.pass(client, service, http2.ClientPreface, f.sent, f.ended) })
	sides.Go(func() { w.pass(service, client, "", f.answered, f.ended) })
	sides.Wait()
	w.add(func(n *Count) {
		n.Connections++
		n.Sent += f.count.Sent
		n.Answered += f.count.Answered
		n.Refused += f.count.Refused
		n.Lost += f.count.Lost
		n.Unused += f.count.Unused
	})
}

// pass copies from one side to the other. It records each frame before it passes the
// frame on, so before any answer. It also records which side has ended before the other
// side can notice: if a client closes in the middle of its answers, the first sign may
// be a failed Write to it.
func (w *Witness) pass(from, to *net.TCPConn, preface string, seen func(http2.Frame), ended func(side *net.TCPConn)) {
	in := bufio.NewReader(from)
	var raw bytes.Buffer // read and not passed on yet
	f := http2.NewFramer(nil, io.TeeReader(in, &raw))
	_, err := io.CopyN(&raw, in, int64(len(preface)))
	for err == nil {
		var frame http2.Frame
		if frame, err = f.ReadFrame(); err == nil {
			seen(frame)
			if in.Buffered() > 0 && raw.Len() < 1<<14 {
				continue // one Write for what came together
			}
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
		_ = to.Close()
		w.mu.Lock()
		w.err = errors.Join(w.err, fmt.Errorf("witness: frame: %w", err))
		w.mu.Unlock()
	}
}
