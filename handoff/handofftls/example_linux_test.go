package handofftls_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handofftls"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
)

// A server that returns each line, with its generation. After an upgrade a connection moves
// when it waits for a line. Both generations are in one process here.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	old, ln := generation(ctx, dir, "127.0.0.1:0", 1)

	nc, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	answers := bufio.NewScanner(nc)
	ask := func() {
		_, _ = fmt.Fprintln(nc, "hello") // the answer tells
		answers.Scan()
		fmt.Println(answers.Text(), answers.Err())
	}
	ask()
	up, _ := generation(ctx, dir, ln.Addr().String(), 2)
	<-old.Done()
	if err := old.Shutdown(ctx); err != nil { // returns when the connection has moved
		log.Fatal(err)
	}
	ask()
	_ = nc.Close()
	if err := up.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// hello from generation 1 <nil>
	// hello from generation 2 <nil>
}

// generation starts one.
func generation(ctx context.Context, dir, address string, n int) (*handoff.Upgrader, net.Listener) {
	up, err := handoff.New(&handoff.Config{
		Mode: handoff.Takeover, ControlSocket: filepath.Join(dir, "run", "control.sock"), Probation: -1,
		UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
	})
	if err != nil {
		log.Fatal(err)
	}
	cert, err := certificate(dir)
	if err != nil {
		log.Fatal(err)
	}
	cfg := &handofftls.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}
	s := &server{up: up, cfg: cfg, n: n}
	if err := cfg.Probe(); err != nil {
		log.Print(err) // connections stay to their end
	} else if s.from, err = up.Conns(cfg.Name("lines")); err != nil {
		log.Fatal(err)
	}
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	go s.accept(ctx, ln)
	go s.receive(ctx)
	if err := up.Ready(); err != nil {
		log.Fatal(err)
	}
	return up, ln
}

func certificate(dir string) (tls.Certificate, error) {
	cert, key, err := selfsigned.Write(dir, "localhost")
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.LoadX509KeyPair(cert, key)
}

type server struct {
	up   *handoff.Upgrader
	cfg  *handofftls.Config
	from <-chan handoff.MovedConn
	n    int
}

// accept serves new connections.
func (s *server) accept(ctx context.Context, ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return // after Done
		}
		go func() {
			c, err := handofftls.Server(ctx, nc, s.cfg)
			if err != nil {
				log.Print(err)
				_ = nc.Close()
				return
			}
			s.serve(ctx, c, "")
		}()
	}
}

// receive serves those of the predecessor.
func (s *server) receive(ctx context.Context) {
	for {
		select {
		case mc := <-s.from:
			mc.Conn = s.up.Track(mc.Conn)
			c, begun, err := handofftls.Receive(mc, s.cfg)
			if err != nil {
				log.Print(err)
				_ = mc.Conn.Close()
				continue
			}
			go s.serve(ctx, c, string(begun))
		case <-s.up.Done():
			return
		}
	}
}

// serve answers the lines of c, of which begun is the begin of the first. It is what moves,
// beside the connection.
func (s *server) serve(ctx context.Context, c *handofftls.Conn, begun string) {
	defer c.Close()
	served := make(chan struct{})
	defer close(served)
	go func() { // has a Read return when it is time to move
		select {
		case <-s.up.Done():
			_ = c.SetReadDeadline(time.Unix(1, 0))
		case <-served:
		}
	}()
	buf := make([]byte, 1)
	for {
		_, err := c.Read(buf)
		var ne net.Error
		switch {
		case err == nil && buf[0] == '\n':
			_, _ = fmt.Fprintf(c, "%s from generation %d\n", begun, s.n) // the next Read tells
			begun = ""
		case err == nil:
			begun += string(buf)
		case errors.As(err, &ne) && ne.Timeout():
			if c.CanMove() == nil && handofftls.Send(ctx, s.up, "lines", c, []byte(begun)) == nil {
				return
			}
			_ = c.SetReadDeadline(time.Time{}) // it ends here
		default:
			return
		}
	}
}
