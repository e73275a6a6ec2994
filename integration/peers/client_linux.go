package main

import (
	"bufio"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// requestTimeout bounds each request.
const requestTimeout = 30 * time.Second

// maxDebt bounds how much a client that had to wait sends without pause afterwards.
const maxDebt = 2 * time.Second

// clientSettings configure the client process.
type clientSettings struct {
	Addr    string
	Workers map[kind]int
	Every   map[kind]time.Duration // between two requests of a worker; zero: none
	File    string                 // for the records; "" counts only
	For     time.Duration          // ends by itself; zero: with its standard input
}

// clientMessage is a line that the client process writes.
type clientMessage struct {
	Requests, Failed uint64
	Newest           uint32 // the newest version that has answered
	Last             bool
	Sample           string `json:",omitempty"` // of a failure
}

// now reads the monotonic clock, which is the same in all processes.
func now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // there always is one
	}
	return time.Duration(ts.Nano())
}

type clients struct {
	clientSettings
	requests, failed atomic.Uint64
	newest           atomic.Uint32
	news             chan struct{}

	mu      sync.Mutex
	records []record
	sample  string
}

// clientMain is the client process. It tells how far it is, and at once when a
// newer version has answered.
func clientMain(args []string) error {
	c := &clients{news: make(chan struct{}, 1)}
	if err := json.Unmarshal([]byte(args[0]), &c.clientSettings); err != nil {
		return err
	}
	// A terminal signals all its processes: the driver ends this one.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.For > 0 {
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	go func() { // ends with standard input, or with the process
		_, _ = bufio.NewReader(os.Stdin).ReadByte() // until end of file
		cancel()
	}()
	var wg sync.WaitGroup
	for k, n := range c.Workers {
		for i := range n {
			// Spread, so that they don't all send at once.
			wg.Go(func() { c.work(ctx, k, c.Every[k]*time.Duration(i)/time.Duration(n)) })
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for over := false; !over; {
		select {
		case <-tick.C:
		case <-c.news:
		case <-done:
			over = true
		}
		if !over {
			c.say(false)
		}
	}
	if c.File != "" {
		if err := c.save(); err != nil {
			return err
		}
	}
	c.say(true)
	return nil
}

func (c *clients) say(last bool) {
	c.mu.Lock()
	m := clientMessage{Requests: c.requests.Load(), Failed: c.failed.Load(), Newest: c.newest.Load(), Last: last, Sample: c.sample}
	c.mu.Unlock()
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", b)
}

func (c *clients) save() error {
	f, err := os.Create(c.File)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	return errors.Join(gob.NewEncoder(w).Encode(c.records), w.Flush(), f.Close())
}

// worker is one client, with one connection at a time.
type worker struct {
	*clients
	kind    kind
	request []byte
	nc      net.Conn
	in      *bufio.Reader
}

// work sends requests until ctx ends, the first one after offset. One that is
// under way then is finished.
func (c *clients) work(ctx context.Context, k kind, offset time.Duration) {
	w := &worker{clients: c, kind: k, request: k.request(), in: bufio.NewReader(nil)}
	defer w.hangUp()
	var records []record
	every := c.Every[k]
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	next := now() + offset
	for ctx.Err() == nil {
		due := now()
		if every > 0 {
			if wait := next - due; wait > 0 {
				timer.Reset(wait)
				select {
				case <-timer.C:
				case <-ctx.Done():
					continue
				}
				due = now() // that a timer is late is not the server's doing
			} else {
				due = next // but that the last answer was is
				next = max(next, now()-maxDebt)
			}
			next += every/2 + rand.N(every)
		}
		r := record{Due: due, Kind: k}
		var err error
		r.Version, r.Seen, err = w.do()
		r.Took = now() - due
		if err != nil {
			r.Class = classify(err)
			w.fail(err)
		}
		c.requests.Add(1)
		c.answered(r.Version)
		if c.File != "" {
			records = append(records, r)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records = append(c.records, records...)
}

func classify(err error) load.Class {
	if errors.Is(err, errResponse) {
		return load.Wrong
	}
	return load.Classify(err)
}

func (w *worker) fail(err error) {
	w.failed.Add(1)
	w.hangUp()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sample == "" {
		w.sample = err.Error()
	}
}

// answered notes which version has answered.
func (c *clients) answered(version uint32) {
	for {
		old := c.newest.Load()
		if version <= old {
			return
		}
		if c.newest.CompareAndSwap(old, version) {
			select {
			case c.news <- struct{}{}:
			default:
			}
			return
		}
	}
}

func (w *worker) hangUp() {
	if w.nc != nil {
		_ = w.nc.Close() // what came of it is known
		w.nc = nil
	}
}

// do sends a request and reads its response. ended tells whether the connection
// that was to be used again had ended already.
func (w *worker) do() (version uint32, ended bool, err error) {
	if w.nc == nil {
		if w.nc, err = net.DialTimeout("tcp", w.Addr, requestTimeout); err != nil {
			w.nc = nil
			return 0, false, err
		}
		w.in.Reset(w.nc)
	} else {
		ended = hasEnded(w.nc)
	}
	if err := w.nc.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return 0, ended, err
	}
	version, closes, err := exchange(w.nc, w.in, w.request)
	if err == nil && (closes || w.kind == short) {
		w.hangUp()
	}
	return version, ended, err
}

// hasEnded reports whether the peer has sent a FIN or RST that was not read yet.
func hasEnded(nc net.Conn) bool {
	rc, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return true
	}
	ended := false
	err = rc.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		ended = n == 0 && err == nil || err != nil && !errors.Is(err, unix.EAGAIN)
		return true
	})
	return ended || err != nil
}
