package rig

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// Load is what a client process does. Each of its clients sends one POST after
// the other, never again one that failed, and takes a new connection where the
// server said "Connection: close" or after a failure.
type Load struct {
	Addr    string
	Clients int
	Close   bool          // a connection for each request
	Think   time.Duration // up to so much between two requests
	Body    int           // bytes of each request
	Ahead   int           // HTTP/1: so many requests more are on their way, in a pipeline
	Dial    time.Duration // bounds a connect; zero means 10 s

	Protocol string // "" HTTP/1; "tls" HTTP/1 on TLS; "h2", "h2c": HTTP/2 of net/http, one connection for each 8 clients
}

// Outcome is the result.
type Outcome struct {
	OK     uint64
	Failed uint64
	Unsent uint64            // HTTP/2: GOAWAY arrived before any part of the request was sent; not failed
	Conns  uint64            // connections that were made
	Fresh  uint64            // of these, with a full TLS handshake
	Errors map[string]uint64 // by kind
	Gens   map[string]uint64 // responses by generation
	P50    time.Duration
	P99    time.Duration
	Max    time.Duration
}

// Add adds the numbers of another outcome; times are the larger ones.
func (o *Outcome) Add(p Outcome) {
	o.OK, o.Failed, o.Conns, o.Fresh = o.OK+p.OK, o.Failed+p.Failed, o.Conns+p.Conns, o.Fresh+p.Fresh
	o.Unsent += p.Unsent
	o.P50, o.P99, o.Max = max(o.P50, p.P50), max(o.P99, p.P99), max(o.Max, p.Max)
	if o.Errors == nil {
		o.Errors, o.Gens = make(map[string]uint64), make(map[string]uint64)
	}
	for k, n := range p.Errors {
		o.Errors[k] += n
	}
	for k, n := range p.Gens {
		o.Gens[k] += n
	}
}

// ClientMain is the client process: its argument is a Load in JSON. It says
// "begun" once each client has had a response, runs until its standard input
// ends, and writes its Outcome. A line "count" on its standard input has it
// write the number of responses so far.
func ClientMain(args []string) {
	var l Load
	if err := json.Unmarshal([]byte(args[0]), &l); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(2)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var r runner
	begun := make(chan struct{})
	done := make(chan Outcome, 1)
	go func() { done <- r.run(ctx, l, begun) }()
	<-begun
	fmt.Println("begun")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(r.ok.Load())
	}
	cancel()
	b, err := json.Marshal(<-done)
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(2)
	}
	fmt.Printf("%s\n", b)
}

type runner struct {
	ok atomic.Uint64
	mu sync.Mutex
	o  Outcome
}

// run loads a server until ctx ends.
func (r *runner) run(ctx context.Context, l Load, begun chan<- struct{}) Outcome {
	r.o.Errors, r.o.Gens = make(map[string]uint64), make(map[string]uint64)
	var wg, first sync.WaitGroup
	var hist histogram
	var tr *http.Transport
	for i := range l.Clients {
		first.Add(1)
		if l.Protocol == "h2" || l.Protocol == "h2c" {
			if i%8 == 0 {
				tr = newTransport(l)
				defer tr.CloseIdleConnections()
			}
			tr := tr
			wg.Go(func() { r.client2(ctx, l, tr, sync.OnceFunc(first.Done), &hist) })
			continue
		}
		wg.Go(func() { r.client(ctx, l, sync.OnceFunc(first.Done), &hist) })
	}
	first.Wait()
	close(begun)
	wg.Wait()
	r.o.OK = r.ok.Load()
	r.o.P50, r.o.P99, r.o.Max = hist.at(0.5), hist.at(0.99), hist.at(1)
	return r.o
}

// client sends requests until ctx ends; one that is under way is finished.
func (r *runner) client(ctx context.Context, l Load, begun func(), hist *histogram) {
	defer begun()
	request := fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n", l.Body)
	if l.Close {
		request = append(request, "Connection: close\r\n"...)
	}
	request = append(request, "\r\n"...)
	request = append(request, bytes.Repeat([]byte{'x'}, l.Body)...)
	dial := net.Dialer{Timeout: l.Dial}
	if l.Dial == 0 {
		dial.Timeout = 10 * time.Second
	}
	// A cache of its own: what one client has, another can't resume.
	secure := &tls.Config{InsecureSkipVerify: true, ServerName: "h", ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	var nc net.Conn
	in := bufio.NewReader(nil)
	gens := make(map[string]uint64)
	defer func() {
		if nc != nil {
			_ = nc.Close()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for g, n := range gens {
			r.o.Gens[g] += n
		}
	}()
	ahead := 0 // sent and not answered
	for ctx.Err() == nil || ahead > 0 {
		began := time.Now()
		if nc == nil {
			var err error
			if nc, err = dial.Dial("tcp", l.Addr); err != nil {
				nc = nil
				r.fail("connect", err)
				continue
			}
			if l.Protocol == "tls" {
				tc := tls.Client(nc, secure)
				if err := tc.Handshake(); err != nil {
					_ = nc.Close()
					nc = nil
					r.fail("handshake", err)
					continue
				}
				if nc = tc; !tc.ConnectionState().DidResume {
					r.mu.Lock()
					r.o.Fresh++
					r.mu.Unlock()
				}
			}
			in.Reset(nc)
			r.mu.Lock()
			r.o.Conns++
			r.mu.Unlock()
		}
		_ = nc.SetDeadline(time.Now().Add(30 * time.Second)) // Read returns the error
		var err error
		for ; err == nil && (ahead == 0 || ctx.Err() == nil && ahead <= l.Ahead); ahead++ {
			_, err = nc.Write(request)
		}
		var gen string
		var closes bool
		if err == nil {
			gen, closes, err = response(in, l.Body)
		}
		ahead--
		if err != nil {
			_ = nc.Close()
			nc = nil
			r.fail("request", err)
			r.lost(&ahead)
			continue
		}
		r.ok.Add(1)
		hist.add(time.Since(began))
		gens[gen]++
		begun()
		if closes || l.Close {
			_ = nc.Close()
			nc = nil
			r.lost(&ahead)
		}
		l.think(ctx)
	}
}

// lost counts requests in the pipeline that will get no response.
func (r *runner) lost(ahead *int) {
	for ; *ahead > 0; *ahead-- {
		r.fail("request", errUnanswered)
	}
	*ahead = 0
}

func (l *Load) think(ctx context.Context) {
	if l.Think == 0 {
		return
	}
	t := time.NewTimer(rand.N(l.Think))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func newTransport(l Load) *http.Transport {
	tr := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if l.Protocol == "h2" {
		tr.Protocols.SetHTTP2(true)
	} else {
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	return tr
}

// client2 is client for HTTP/2. Its requests have no GetBody, so net/http can't repeat
// a request of which it has sent a part. A request of which it has sent nothing can
// fail too: if GOAWAY arrives after net/http has chosen a connection and before it
// opens a stream, it closes the body and then can't rewind it. No server can prevent
// that; such a request counts as unsent, and another one replaces it.
func (r *runner) client2(ctx context.Context, l Load, tr *http.Transport, begun func(), hist *histogram) {
	defer begun()
	url := "http://" + l.Addr + "/"
	if l.Protocol == "h2" {
		url = "https://" + l.Addr + "/"
	}
	body := bytes.Repeat([]byte{'x'}, l.Body)
	for ctx.Err() == nil {
		began := time.Now()
		bound, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		once := load.NewBody(body)
		req, err := http.NewRequestWithContext(bound, http.MethodPost, url, once)
		if err != nil {
			panic(err)
		}
		req.ContentLength = int64(l.Body)
		res, err := tr.RoundTrip(req)
		if err == nil {
			var b []byte
			b, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err == nil && (res.StatusCode != http.StatusOK || res.ProtoMajor != 2 || string(b) != strconv.Itoa(l.Body)) {
				err = fmt.Errorf("%w: %s %s", errResponse, res.Proto, res.Status)
			}
		}
		cancel()
		if err != nil && !once.Sent() && strings.Contains(err.Error(), "cannot rewind body") {
			r.mu.Lock()
			r.o.Unsent++
			r.mu.Unlock()
			continue
		}
		if err != nil {
			r.fail("request", err)
			continue
		}
		r.ok.Add(1)
		hist.add(time.Since(began))
		r.mu.Lock()
		r.o.Gens[res.Header.Get("Gen")]++
		r.mu.Unlock()
		begun()
		l.think(ctx)
	}
}

func (r *runner) fail(what string, err error) {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.o.Failed++
	r.o.Errors[what+": "+text]++
}

var (
	errResponse   = errors.New("malformed response")
	errUnanswered = errors.New("in the pipeline when the connection ended")
)

// response reads the response to a request: the generation, and whether the
// server closes the connection.
func response(in *bufio.Reader, body int) (gen string, closes bool, err error) {
	size := -1
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return "", false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case first:
			if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
				return "", false, fmt.Errorf("%w %q", errResponse, line)
			}
		case len(line) == 0:
			if size < 0 {
				return "", false, errResponse
			}
			var b [64]byte
			n, err := io.ReadFull(in, b[:min(size, len(b))])
			if err != nil {
				return "", false, err
			}
			if got := string(b[:n]); got != strconv.Itoa(body) {
				return "", false, fmt.Errorf("%w: body %q for one of %d bytes", errResponse, got, body)
			}
			return gen, closes, nil
		default:
			k, v, _ := bytes.Cut(line, []byte(": "))
			switch string(k) {
			case "Content-Length":
				if size, err = strconv.Atoi(string(v)); err != nil {
					return "", false, err
				}
			case "Gen":
				gen = string(v)
			case "Connection":
				closes = string(v) == "close"
			}
		}
	}
}

// histogram counts times in steps of a fifth.
type histogram struct {
	n [128]atomic.Uint64
}

func (h *histogram) add(d time.Duration) {
	i := 0
	for limit := time.Microsecond; d > limit && i < len(h.n)-1; i++ {
		limit += limit/5 + 1
	}
	h.n[i].Add(1)
}

// at returns the time that the given part of all is below.
func (h *histogram) at(part float64) time.Duration {
	var all uint64
	for i := range h.n {
		all += h.n[i].Load()
	}
	limit := time.Microsecond
	var sum uint64
	for i := range h.n {
		if sum += h.n[i].Load(); all > 0 && float64(sum) >= part*float64(all) {
			return limit
		}
		limit += limit/5 + 1
	}
	return limit
}
