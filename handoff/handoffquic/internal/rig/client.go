package rig

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Clients are the settings of the clients' process.
type Clients struct {
	Address string
	Cert    string // the server's certificate
	Kept    int    // connections that have requests under way all the time; a third of them moves
	New     int    // goroutines that make new connections all the time
	Life    time.Duration
	Link    Link
}

const envClients = "BATON_FLOWS_CLIENTS"

// A Result is what the clients saw. They send nothing twice.
type Result struct {
	Requests    int64 // answered
	Connections int64
	Migrations  int64 // the client's address has changed
	Failed      int64 // requests and handshakes
	Rejected    int64 // requests that the server rejected with a GOAWAY
	Broken      int64 // connections that did not end by the client
	Strayed     int64 // answers by another process than the first of the connection
	Errors      []string
}

// idle bounds how long a server serves a connection whose last packet was lost.
const idle = 10 * time.Second

type clients struct {
	Clients
	tls    *tls.Config
	server *net.UDPAddr

	mu  sync.Mutex
	res Result
}

// ClientsMain is the program of the clients. It runs until its standard input ends, and
// writes its Result.
func ClientsMain([]string) {
	c := new(clients)
	err := json.Unmarshal([]byte(os.Getenv(envClients)), &c.Clients)
	if err == nil {
		err = c.run()
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(&c.res)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

func (c *clients) run() (err error) {
	pem, err := os.ReadFile(c.Cert)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c.tls = &tls.Config{RootCAs: roots, ServerName: host, NextProtos: []string{http3.NextProtoH3}}
	if c.server, err = net.ResolveUDPAddr("udp", c.Address); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with standard input
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var wg sync.WaitGroup
	for i := range c.Kept {
		wg.Go(func() {
			for ctx.Err() == nil {
				c.connection(ctx, i)
			}
		})
	}
	for range c.New {
		wg.Go(func() {
			for ctx.Err() == nil {
				c.connection(ctx, -1)
			}
		})
	}
	wg.Wait()
	return nil
}

func (c *clients) count(n *int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
	if err != nil && len(c.res.Errors) < 20 {
		c.res.Errors = append(c.res.Errors, time.Now().Format("05.000 ")+err.Error())
	}
}

// connection goes through one connection. One of number -1 has a single request. Of the
// others each sixth moves to another socket of the client, and each sixth gets another port
// from its NAT.
func (c *clients) connection(ctx context.Context, number int) {
	migrates, rebinds := number >= 0 && number%6 == 0, number >= 0 && number%6 == 3
	if c.Link != (Link{}) { // a relay has one client
		migrates, rebinds = false, migrates || rebinds
	}
	var sockets []*net.UDPConn
	var transports []*quic.Transport
	open := func() *quic.Transport {
		s, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			c.count(&c.res.Failed, err)
			return nil
		}
		t := &quic.Transport{Conn: s}
		sockets, transports = append(sockets, s), append(transports, t)
		return t
	}
	defer func() {
		for i, t := range transports {
			_ = t.Close()
			_ = sockets[i].Close()
		}
	}()
	to := c.server
	var r *relay
	if rebinds || c.Link != (Link{}) {
		var err error
		if r, err = newRelay(c.server, c.Link); err != nil {
			c.count(&c.res.Failed, err)
			return
		}
		defer r.close()
		to = r.front.LocalAddr().(*net.UDPAddr)
	}
	t := open()
	if t == nil {
		return
	}
	dial, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	qc, err := t.Dial(dial, to, c.tls, &quic.Config{MaxIdleTimeout: idle})
	if err != nil {
		c.count(&c.res.Failed, fmt.Errorf("dial: %w", err))
		return
	}
	c.count(&c.res.Connections, nil)
	h := (&http3.Transport{}).NewClientConn(qc)
	var first atomic.Pointer[string]
	life, stop := ctx, context.CancelFunc(func() {})
	if number >= 0 {
		life, stop = context.WithTimeout(ctx, c.Life/2+time.Duration(mathrand.Int64N(int64(c.Life))))
	}
	defer stop()
	var wg sync.WaitGroup
	if number < 0 {
		c.post(h, &first)
	} else {
		for range 2 {
			wg.Go(func() {
				for life.Err() == nil && c.post(h, &first) {
				}
			})
		}
	}
	for (migrates || rebinds) && life.Err() == nil && qc.Context().Err() == nil {
		select {
		case <-time.After(c.Life / 6):
		case <-life.Done():
			continue
		case <-qc.Context().Done():
			continue
		}
		move := r.rebind
		if migrates {
			move = func() error { return migrate(qc, open()) }
		}
		if err := move(); err != nil {
			if qc.Context().Err() == nil {
				c.count(&c.res.Failed, fmt.Errorf("migrate: %w", err))
			}
			continue
		}
		c.count(&c.res.Migrations, nil)
	}
	wg.Wait()
	if err := context.Cause(qc.Context()); err != nil {
		c.count(&c.res.Broken, fmt.Errorf("connection %d: %w", number, err))
	}
	_ = qc.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

// migrate moves a connection to another socket of the client.
func migrate(qc *quic.Conn, t *quic.Transport) error {
	if t == nil {
		return errors.New("no socket")
	}
	p, err := qc.AddPath(t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(qc.Context(), 10*time.Second)
	defer cancel()
	if err := p.Probe(ctx); err != nil {
		return err
	}
	return p.Switch()
}

// post sends a POST and checks the answer. It reports whether that is right.
func (c *clients) post(h *http3.ClientConn, first *atomic.Pointer[string]) bool {
	body := make([]byte, mathrand.IntN(8<<10))
	_, _ = rand.Read(body)
	pid, err := c.roundTrip(h, body)
	var app *http3.Error
	switch {
	case errors.As(err, &app) && app.ErrorCode == http3.ErrCodeRequestRejected:
		c.count(&c.res.Rejected, err)
	case err != nil:
		c.count(&c.res.Failed, fmt.Errorf("request: %w", err))
	default:
		c.count(&c.res.Requests, nil)
		if !first.CompareAndSwap(nil, &pid) && *first.Load() != pid {
			c.count(&c.res.Strayed, fmt.Errorf("pid %s answers on a connection of pid %s", pid, *first.Load()))
		}
	}
	return err == nil
}

func (c *clients) roundTrip(h *http3.ClientConn, body []byte) (pid string, err error) {
	req, err := http.NewRequest(http.MethodPost, "https://"+host+"/", struct{ io.Reader }{bytes.NewReader(body)}) // which can't be sent again
	if err != nil {
		return "", err
	}
	res, err := h.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(body)
	if res.StatusCode != http.StatusOK || strings.TrimSpace(string(got)) != hex.EncodeToString(sum[:]) {
		return "", fmt.Errorf("answer %d %.80q", res.StatusCode, got)
	}
	return res.Header.Get("X-Pid"), nil
}
