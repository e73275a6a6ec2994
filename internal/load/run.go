package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Run asks questions at all targets until ctx ends, lets the open connections end, and
// returns the counts. It returns an error only if c is invalid: failures of the service
// are counted. Its goroutines have ended when it returns.
func Run(ctx context.Context, c Config) (Stats, error) {
	c, err := c.withDefaults()
	if err != nil {
		return Stats{}, err
	}
	r := &runner{Config: c, recorder: newRecorder(c.Targets, time.Now())}
	var wg sync.WaitGroup
	for _, t := range c.Targets {
		for range t.Workers {
			wg.Go(func() { r.work(ctx, t) }) // ends after ctx, with its exchange
		}
	}
	over := make(chan struct{})
	var progress sync.WaitGroup
	progress.Go(func() { r.watchStalls(over) })
	if c.Progress != nil {
		progress.Go(func() { // ends with over
			tick := time.NewTicker(c.Every)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					c.Progress(r.snapshot())
				case <-over:
					return
				}
			}
		})
	}
	<-ctx.Done()
	r.stop()
	wg.Wait()
	close(over)
	progress.Wait()
	return r.snapshot(), nil
}

type runner struct {
	Config
	*recorder
	tokens atomic.Uint64
}

func (r *runner) token() string { return fmt.Sprintf("q%d", r.tokens.Add(1)) }

// heartbeat is how often watchStalls wants to run.
const heartbeat = 2 * time.Millisecond

// watchStalls notes how late it is woken, until over.
func (r *runner) watchStalls(over <-chan struct{}) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-tick.C:
			now := time.Now()
			r.stalled(now.Sub(last) - heartbeat)
			last = now
		case <-over:
			return
		}
	}
}

// work is one client.
func (r *runner) work(ctx context.Context, t Target) {
	var udp net.Conn // of kind Datagram, as long as nothing fails
	var post *poster // of kind Post, likewise
	defer func() {
		if udp != nil {
			_ = udp.Close()
		}
		post.close()
	}()
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	for ctx.Err() == nil {
		e := exchange{runner: r, target: t, step: "connect"}
		var err error
		switch t.Kind {
		case Once:
			err = e.once()
		case Keep, Marked:
			err = e.open(ctx)
		case Datagram:
			udp, err = e.datagram(udp)
		case HTTP:
			err = e.http(transport)
		case Post:
			post, err = e.post(post)
		}
		if f := r.done(t.Name, e.version, e.questions, e.step, e.local, err); f != nil && r.Failed != nil {
			r.Failed(*f)
		}
		pause := r.Pause
		switch {
		case err != nil:
			pause = r.Spacing // don't flood a service that has ended
		case t.Kind == Keep || t.Kind == Marked:
			continue
		}
		if pause > 0 {
			sleep(ctx, pause)
		}
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

// exchange is one connection, datagram or request.
type exchange struct {
	*runner
	target    Target
	version   string // that served it, once known
	questions uint64 // answered
	step      string // what it is about
	local     string // the client's address, once there is one
}

// dial connects and reads the greeting.
func (e *exchange) dial() (*lines, hello, error) {
	c, err := net.DialTimeout(e.target.Network, e.target.Address, e.Timeout)
	if err != nil {
		return nil, hello{}, err
	}
	e.local = c.LocalAddr().String()
	l := newLines(c)
	h, err := e.greet(l)
	if err != nil {
		_ = c.Close()
		return nil, hello{}, err
	}
	return l, h, nil
}

func (e *exchange) greet(l *lines) (hello, error) {
	e.step = "read greeting"
	if err := l.c.SetDeadline(time.Now().Add(e.Timeout)); err != nil {
		return hello{}, err
	}
	line, err := l.read()
	if err != nil {
		return hello{}, err
	}
	h, err := parseHello(line)
	if err != nil {
		return hello{}, err
	}
	e.version = h.version
	e.accepted(e.target.Name, h.version, h.generation)
	return h, nil
}

// ask asks a question and checks the answer; whether it may be the last one is
// the caller's to judge.
func (e *exchange) ask(l *lines, verb string) (answer, error) {
	e.step = "ask"
	if err := l.c.SetDeadline(time.Now().Add(e.Timeout)); err != nil {
		return answer{}, err
	}
	token := e.token()
	if err := l.write(verb + " " + token); err != nil {
		return answer{}, err
	}
	e.step = "read answer"
	line, err := l.read()
	if err != nil {
		return answer{}, err
	}
	a, err := parseAnswer(line)
	switch {
	case err != nil:
		return a, err
	case a.token != token:
		return a, wrong("token", a.token, token)
	case a.version != e.version:
		return a, wrong("version", a.version, e.version)
	}
	e.questions++
	return a, nil
}

// end checks that the service closes the connection, and adds nothing.
func (e *exchange) end(l *lines) error {
	e.step = "read end"
	line, err := l.read()
	switch {
	case err == nil:
		return wrong("line after the last answer", line, "")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

func (e *exchange) once() error {
	l, _, err := e.dial()
	if err != nil {
		return err
	}
	defer l.c.Close()
	return e.finish(l, verbOnce)
}

// finish asks the last question.
func (e *exchange) finish(l *lines, verb string) error {
	a, err := e.ask(l, verb)
	if err != nil {
		return err
	}
	if !a.last {
		return wrong("end", a.String(), "last")
	}
	return e.end(l)
}

// open asks many questions on one connection.
func (e *exchange) open(ctx context.Context) (err error) {
	l, h, err := e.dial()
	if err != nil {
		return err
	}
	defer l.c.Close()
	e.opened()
	defer func() { e.closed(h.generation, err) }()
	verb := verbKeep
	if e.target.Kind == Marked {
		verb = verbNext
	}
	tick := time.NewTicker(e.Spacing)
	defer tick.Stop()
	for n := 1; ; n++ {
		// One of kind Keep runs to its end; that takes a bounded time.
		if verb == verbKeep && n >= e.Questions || verb == verbNext && ctx.Err() != nil {
			return e.finish(l, verbBye)
		}
		a, err := e.ask(l, verb)
		switch {
		case err != nil:
			return err
		case a.last && verb == verbNext:
			return e.end(l)
		case a.last:
			return wrong("end", a.String(), "more")
		}
		<-tick.C
	}
}

// datagram asks over c, or a new socket if c is nil. It returns the socket, or
// nil after a failure: an answer that comes late must not meet the next
// question.
func (e *exchange) datagram(c net.Conn) (net.Conn, error) {
	if c == nil {
		var err error
		if c, err = net.DialTimeout(e.target.Network, e.target.Address, e.Timeout); err != nil {
			return nil, err
		}
	}
	if err := e.askDatagram(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (e *exchange) askDatagram(c net.Conn) error {
	e.step, e.local = "send", c.LocalAddr().String()
	if err := c.SetDeadline(time.Now().Add(e.Timeout)); err != nil {
		return err
	}
	token := e.token()
	if _, err := c.Write([]byte(token)); err != nil {
		return err
	}
	e.step = "receive"
	buf := make([]byte, maxLine)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	return e.short(string(buf[:n]), token)
}

// short checks an answer that comes without a greeting.
func (e *exchange) short(text, token string) error {
	version, err := parseShort(text, token)
	if err != nil {
		return err
	}
	e.version = version
	e.questions++
	e.accepted(e.target.Name, version, 0)
	return nil
}

func (e *exchange) http(transport *http.Transport) error {
	e.step = "request"
	ctx, cancel := context.WithTimeout(context.Background(), e.Timeout)
	defer cancel()
	token := e.token()
	// A POST on a connection of its own: the transport has no reason to retry
	// it (net/http, Transport).
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { e.local = info.Conn.LocalAddr().String() },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+e.target.Address+"/", strings.NewReader(token))
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	e.step = "read response"
	return e.response(resp, token)
}

// response checks a response, which it reads to its end.
func (e *exchange) response(resp *http.Response, token string) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxLine))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return wrong("status", resp.Status, "200 OK")
	}
	return e.short(string(bytes.TrimSpace(body)), token)
}
