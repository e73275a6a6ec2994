package tlspeers_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handofftls"
)

// patience bounds each wait.
const patience = time.Minute

// A server returns each line. After it, the connection moves, if it can, within the
// process, but after a line that begins with hold.
type server struct {
	addr string
	cfg  *handofftls.Config
	wg   sync.WaitGroup

	mu    sync.Mutex
	moves int
	stays []error // why connections never move
	errs  []error
	state *tls.ConnectionState // of the last connection
}

const hold = "hold"

var certificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

// start starts a server. The end of the test waits for its connections.
func start(t *testing.T) *server {
	t.Helper()
	cert, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: ln.Addr().String(), cfg: &handofftls.Config{
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, ChaCha20Poly1305: chacha20poly1305.New,
	}}
	if err := s.cfg.Probe(); err != nil {
		t.Fatal(err)
	}
	s.wg.Go(func() { // ends with the listener
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { // ends with the client, or with its deadline
				defer nc.Close()
				if err := s.serve(t.Context(), nc); err != nil {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.errs = append(s.errs, err)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close() // ends accept
		s.wg.Wait()
		if err := errors.Join(s.errs...); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *server) serve(ctx context.Context, nc net.Conn) error {
	limit := time.Now().Add(patience)
	if err := nc.SetDeadline(limit); err != nil {
		return err
	}
	c, err := handofftls.Server(ctx, nc, s.cfg)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // the last one
	st := c.ConnectionState()
	s.mu.Lock()
	s.state = &st
	s.mu.Unlock()
	var begun []byte
	buf := make([]byte, 4096)
	for stays := false; ; {
		n, err := c.Read(buf)
		var ne net.Error
		switch {
		case errors.As(err, &ne) && ne.Timeout() && time.Now().Before(limit):
			if err := c.SetReadDeadline(limit); err != nil {
				return err
			}
			switch err := c.CanMove(); {
			case err == nil:
				next, state, err := s.move(ctx, c, begun)
				if err != nil {
					return err
				}
				c, begun = next, state
			case errors.Is(err, handofftls.ErrStays) && !stays:
				stays = true
				s.mu.Lock()
				s.stays = append(s.stays, err)
				s.mu.Unlock()
			}
			continue
		case err != nil && n == 0:
			return nil // the client tells what it lacks
		}
		begun = append(begun, buf[:n]...)
		for {
			line, rest, ok := bytes.Cut(begun, []byte("\n"))
			if !ok {
				break
			}
			if _, err := c.Write(append(line[:len(line):len(line)], '\n')); err != nil {
				return err
			}
			if !bytes.HasPrefix(line, []byte(hold)) {
				// The next Read finds whether crypto/tls has more.
				if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
					return err
				}
			}
			begun = rest
		}
	}
}

// A carrier passes a connection on within the process.
type carrier struct{ moved handoff.MovedConn }

func (s *carrier) SendConn(_ context.Context, _ string, conn net.Conn, state []byte) error {
	s.moved = handoff.MovedConn{Conn: conn, State: bytes.Clone(state)}
	return nil
}

func (s *server) move(ctx context.Context, c *handofftls.Conn, begun []byte) (*handofftls.Conn, []byte, error) {
	var up carrier
	if err := handofftls.Send(ctx, &up, "line", c, begun); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	s.moves++
	s.mu.Unlock()
	return handofftls.Receive(up.moved, s.cfg)
}

// want compares what became of the connections.
func (s *server) want(t *testing.T, moves int, stays string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moves < moves || moves == 0 && s.moves > 0 {
		t.Errorf("%d moves, want %d", s.moves, moves)
	}
	if err := errors.Join(s.stays...); (err == nil) != (stays == "") || err != nil && !strings.Contains(err.Error(), stays) {
		t.Errorf("a connection stays: %v, want %q", err, stays)
	}
}
