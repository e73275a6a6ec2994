package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// clientSettings configure a client process.
type clientSettings struct {
	Process uint32 // numbers it; in the upper half of its workers' numbers
	Far     bool
	Pause   time.Duration // at most, between the requests of a client
	Without []string      // parts of the names of kinds that have no worker
	Dir     string        // for its ledger and its sockets
	Addrs   map[string]string
}

const (
	// clientTimeout bounds each request.
	clientTimeout = 30 * time.Second
	// defaultPause is the longest pause of a client between two requests.
	defaultPause = 8 * time.Millisecond
	// goneTimeout bounds the wait for an answer to a datagram after a service has
	// ended and another was started: datagrams that the old one had not read are lost.
	goneTimeout = 5 * time.Second
	// bigAnswer is the size of the answer to a slow reader.
	bigAnswer = 1 << 20
)

// clientMain is a client process. It reads commands from standard input: at "hold" all
// workers finish and close their connections, at "go" they continue, at "count" it
// writes the number of requests so far, at "gone" it stops waiting for answers to lost
// datagrams. It ends at the end of standard input.
func clientMain(args []string) error {
	var set clientSettings
	if err := json.Unmarshal([]byte(args[0]), &set); err != nil {
		return err
	}
	l, err := openLedger(filepath.Join(set.Dir, fmt.Sprintf("client-%d", set.Process)))
	if err != nil {
		return err
	}
	c := &clients{clientSettings: set, ledger: l}
	say := func(m clientMessage) {
		m.Requests, m.Failed = c.requests.Load(), c.failed.Load()
		b, err := json.Marshal(m)
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s\n", b)
	}
	stop := c.start()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		switch in.Text() {
		case "hold":
			stop()
			say(clientMessage{Kind: "held"})
		case "go":
			stop = c.start()
		case "count":
			say(clientMessage{Kind: "count"})
		case "gone":
			c.asked.gone()
		}
	}
	stop()
	return in.Err()
}

// clientMessage is a line that a client process writes.
type clientMessage struct {
	Kind     string
	Requests uint64
	Failed   uint64
}

type clients struct {
	clientSettings
	*ledger
	requests, failed atomic.Uint64
	samples          atomic.Int64 // refused connections that were logged
	seqs             [1 << 10]uint32
	asked            asked
}

// start starts all workers. The returned function ends them and waits for them.
func (c *clients) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	n := uint32(0)
	for i, k := range kinds() {
		workers := k.near
		if c.Far {
			workers = k.far
		}
		if slices.ContainsFunc(c.Without, func(part string) bool { return strings.Contains(string(k.name), part) }) {
			workers = 0
		}
		for range workers {
			id := n
			n++
			wg.Go(func() {
				w := &worker{
					clients: c, kind: uint8(i), id: c.Process<<16 | id, seq: &c.seqs[id],
					rng: rand.New(rand.NewPCG(uint64(c.Process), uint64(id))), addr: c.Addrs[k.listener],
				}
				w.run(ctx, behaviours()[k.name])
			})
		}
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// A worker is one client, with one connection at a time.
type worker struct {
	*clients
	kind uint8
	id   uint32
	seq  *uint32
	rng  *rand.Rand
	addr string

	conn   connID // the connection that is open, or the last one
	opened int64  // not later than it was
	nc     net.Conn
	in     *bufio.Reader

	library bool       // a library has the connections
	mu      sync.Mutex // guards what a library's goroutines write
	dialled connID
}

// behaviour does one exchange on the open connection or on a new one. After an error of
// a request the worker closes the connection.
type behaviour func(w *worker, ctx context.Context) error

func behaviours() map[kindName]behaviour {
	return map[kindName]behaviour{
		"tcp, short":            func(w *worker, ctx context.Context) error { return w.lines(ctx, "tcp", 0, 1) },
		"tcp, long":             func(w *worker, ctx context.Context) error { return w.lines(ctx, "tcp", 0, 20) },
		"tcp, silent at first":  func(w *worker, ctx context.Context) error { return w.lines(ctx, "tcp", 200*time.Millisecond, 1) },
		"tcp, deferred accept":  func(w *worker, ctx context.Context) error { return w.lines(ctx, "tcp", 200*time.Millisecond, 1) },
		"unix, short":           func(w *worker, ctx context.Context) error { return w.lines(ctx, "unix", 0, 1) },
		"unix, long":            func(w *worker, ctx context.Context) error { return w.lines(ctx, "unix", 0, 20) },
		"unixpacket":            func(w *worker, ctx context.Context) error { return w.lines(ctx, "unixpacket", 0, 3) },
		"udp":                   func(w *worker, _ context.Context) error { return w.datagram("udp") },
		"unixgram":              func(w *worker, _ context.Context) error { return w.datagram("unixgram") },
		"http get, keep-alive":  func(w *worker, _ context.Context) error { return w.http(request{method: "GET"}) },
		"http post, keep-alive": func(w *worker, _ context.Context) error { return w.http(request{method: "POST"}) },
		"http post, short":      func(w *worker, _ context.Context) error { return w.http(request{method: "POST", short: true}) },
		"http, slow reader":     func(w *worker, _ context.Context) error { return w.http(request{method: "GET", big: true}) },
		"http, slow writer":     func(w *worker, _ context.Context) error { return w.http(request{method: "POST", slow: true}) },
		"websocket":             (*worker).websocket,
		"tls post, keep-alive":  func(w *worker, _ context.Context) error { return w.http(request{method: "POST", tls: true}) },
		"h2 post":               (*worker).h2,
		"grpc, unary":           (*worker).grpcUnary,
		"grpc, stream":          (*worker).grpcStream,
	}
}

// run does one exchange after another until ctx ends.
func (w *worker) run(ctx context.Context, b behaviour) {
	defer w.hangUp()
	for ctx.Err() == nil {
		pause := time.Duration(w.rng.Int64N(int64(w.Pause) + 1))
		if err := b(w, ctx); err != nil {
			w.hangUp()
			pause += 20 * time.Millisecond // don't flood a service that has ended
		}
		sleep(ctx, pause)
	}
}

// hangUp closes the connection.
func (w *worker) hangUp() {
	if w.nc != nil {
		_ = w.nc.Close()
		w.nc, w.in = nil, nil
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// request sends one request once: f gets its number, connects if necessary, and returns
// the process that answered.
func (w *worker) request(f func(token string) (pid uint32, err error)) error {
	o := outcome{kind: w.kind, number: number{w.id, *w.seq}, start: now()}
	if w.library { // it may have connected anew since the last request
		w.conn = w.current()
	}
	if w.conn != 0 && (w.nc != nil || w.library) {
		o.conn = w.conn
	}
	*w.seq++
	pid, err := f(o.number.String())
	o.end, o.pid = now(), pid
	if w.library {
		w.conn = w.current()
	}
	if o.after = w.conn; o.conn == 0 {
		o.conn = w.conn
	}
	o.opened = w.opened
	class := load.Classify(err)
	if errors.Is(err, errWrong) {
		class = load.Wrong
	}
	for i, c := range classes() {
		if c == class {
			o.class = uint8(i)
		}
	}
	w.requests.Add(1)
	if err != nil {
		w.failed.Add(1)
		if class != load.Refused || w.samples.Add(1) <= 100 { // no listener: log a sample only
			fmt.Fprintf(os.Stderr, "%.6f request %v (%s) from %s: %v\n", seconds(o.end), o.number, kinds()[w.kind].name, w.local(), err)
		}
	}
	w.add(o.append(nil))
	return err
}

func (w *worker) local() string {
	if w.nc == nil {
		return "?"
	}
	return w.nc.LocalAddr().String()
}

// errWrong marks an answer that is not the one to the request.
var errWrong = errors.New("wrong answer")

// answered parses "PID TOKEN".
func answered(text, token string) (uint32, error) {
	first, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	pid, err := strconv.ParseUint(first, 10, 32)
	if err != nil || rest != token {
		return 0, fmt.Errorf("%w %.100q to %s", errWrong, text, token)
	}
	return uint32(pid), nil
}

// lastWord reads a unixpacket connection whose peer sends a message and closes. Linux
// looks for a message first and for the end afterwards, without a lock between the two
// (net/unix/af_unix.c, __unix_dgram_recvmsg). A message that arrives in between,
// together with the end, is found by the next read.
type lastWord struct{ io.Reader }

func (l lastWord) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if n == 0 && err == io.EOF {
		return l.Reader.Read(p)
	}
	return n, err
}

// dial opens a connection with a deadline.
func (w *worker) dial(network string) error {
	w.conn, w.opened = 0, now()
	d := net.Dialer{Timeout: clientTimeout}
	if strings.HasPrefix(network, "unix") {
		// A name of its own, by which the service can tell whom it serves.
		d.LocalAddr = &net.UnixAddr{Net: network, Name: fmt.Sprintf("@gauntlet-%d-%d-%d", os.Getpid(), w.id, *w.seq)}
	}
	nc, err := d.Dial(network, w.addr)
	if err != nil {
		return err
	}
	w.nc, w.in = nc, bufio.NewReader(nc)
	if network == "unixpacket" {
		w.in = bufio.NewReader(lastWord{nc})
	}
	w.conn = connOf(nc.LocalAddr(), nc.RemoteAddr())
	return nc.SetDeadline(time.Now().Add(clientTimeout))
}
