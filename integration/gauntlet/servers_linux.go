package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/websocket"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/integration/internal/grpcecho"
	"github.com/seed-11c92bf9/baton/internal/load"
)

// servers are the servers of a process.
type servers struct {
	*process
	lns   map[string]*handoff.Listener
	pcs   map[string]*handoff.PacketConn
	addrs map[string]string
}

// listen gets the predecessor's sockets, or binds new ones, and opens the ledger.
func (s *servers) listen() error {
	var err error
	if s.notes, err = openLedger(filepath.Join(s.Notes, "served")); err != nil {
		return err
	}
	ctx := context.Background()
	s.lns, s.pcs, s.addrs = make(map[string]*handoff.Listener), make(map[string]*handoff.PacketConn), make(map[string]string)
	for _, name := range listeners() {
		switch name {
		case lnUDP, lnUnixgram:
			pc, err := s.up.ListenPacketNamed(ctx, name, name, s.Addrs[name])
			if err != nil {
				return err
			}
			s.pcs[name], s.addrs[name] = pc, pc.LocalAddr().String()
		default:
			network := "tcp"
			if name == lnUnix || name == lnUnixpacket {
				network = name
			}
			ln, err := s.up.ListenNamed(ctx, name, network, s.Addrs[name])
			if err != nil {
				return err
			}
			s.lns[name], s.addrs[name] = ln, ln.Addr().String()
		}
	}
	return deferAccept(s.lns[lnDeferred])
}

// deferAccept has the kernel keep connections half-open until data has come
// (TCP_DEFER_ACCEPT, tcp(7)).
func deferAccept(ln *handoff.Listener) error {
	rc, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := rc.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30) }); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt(TCP_DEFER_ACCEPT)", serr)
}

// serve serves all sockets until the process is to end, and lingers.
func (s *servers) serve() error {
	ctx := context.Background()
	s.lines = &load.Service{
		Version: strconv.Itoa(os.Getpid()), Generation: s.up.Generation, Patience: time.Minute, Served: s.served,
	}
	var accepting, conns sync.WaitGroup
	for _, name := range []string{lnLines, lnDeferred, lnUnix, lnUnixpacket} {
		ln := notingListener{s.lns[name], s.process}
		accepting.Go(func() { // ends with Done
			for {
				nc, err := ln.Accept()
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil { // short of descriptors
					<-time.After(5 * time.Millisecond)
					continue
				}
				conns.Go(func() {
					defer nc.Close()
					// The client tells; it ends a connection that it has given up.
					if err := s.lines.ServeConn(nc); err != nil && !errors.Is(err, io.EOF) {
						fmt.Fprintf(os.Stderr, "%.6f %d, %s, connection of %v: %v\n", seconds(now()), os.Getpid(), name, nc.RemoteAddr(), err)
					}
				})
			}
		})
	}
	for _, pc := range s.pcs {
		accepting.Go(func() { _ = s.lines.ServePackets(tellingPacketConn{pc}) }) // the error is the end
	}

	note := func(ctx context.Context, nc net.Conn) context.Context {
		s.held(nc)
		return ctx
	}
	web := &http.Server{Handler: s.handler(), ConnContext: note}
	secure := &http.Server{Handler: web.Handler, ConnContext: note}
	cert, err := tls.LoadX509KeyPair(filepath.Join(s.Notes, "cert.pem"), filepath.Join(s.Notes, "key.pem"))
	if err != nil {
		return err
	}
	secure.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	gs := grpc.NewServer()
	grpcecho.Register(gs, func(token string) string {
		s.served(token)
		return s.lines.Version + " " + token
	})
	calls := notingListener{s.lns[lnGRPC], s.process}
	accepting.Go(func() { _ = gs.Serve(calls) }) // the error is the end

	var linger func()
	if s.Shutdown {
		linger = s.shutdown(&accepting, web, secure)
	} else {
		linger = s.handoff(&accepting, web, secure)
	}
	ready := s.up.Ready()
	if ready == nil {
		s.say(message{Kind: "serving", Addrs: s.addrs, Gen: s.up.Generation()})
		s.act(atProbation)
		select {
		case <-s.up.Done():
		case <-driverGone():
			return errors.Join(errors.New("the driver is gone"), s.up.Close())
		}
	}
	select {
	case <-s.up.Done(): // it may have accepted something, whatever Ready says
	default:
		ready = errors.Join(ready, s.up.Close())
	}
	var ends sync.WaitGroup
	ends.Go(linger)
	ends.Go(func() {
		stop := context.AfterFunc(s.expired(), gs.Stop)
		defer stop()
		gs.GracefulStop()
	})
	ends.Wait()
	accepting.Wait()
	err = errors.Join(ready, s.up.Err(), s.up.Shutdown(ctx))
	conns.Wait()
	return err
}

// expired returns a context that ends with the linger limit.
func (s *servers) expired() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the limit, or the process
		<-s.up.LingerExpired()
		cancel()
	}()
	return ctx
}

// handoff serves the HTTP servers by package handoffhttp.
func (s *servers) handoff(accepting *sync.WaitGroup, web, secure *http.Server) (linger func()) {
	c := &handoffhttp.Config{Upgrader: s.up}
	hs, hts := handoffhttp.New(web, c), handoffhttp.New(secure, c)
	plain := hs.Wrap(s.lns[lnHTTP])
	accepting.Go(func() { _ = hs.Serve(plain) }) // the error is the end
	accepting.Go(func() { _ = hts.ServeTLS(s.lns[lnTLS], "", "") })
	return func() {
		var both sync.WaitGroup
		both.Go(func() { hs.Linger(context.Background()) })
		both.Go(func() { hts.Linger(context.Background()) })
		both.Wait()
	}
}

// shutdown serves them as package net/http's documentation shows it.
func (s *servers) shutdown(accepting *sync.WaitGroup, web, secure *http.Server) (linger func()) {
	accepting.Go(func() { _ = web.Serve(s.lns[lnHTTP]) })
	accepting.Go(func() { _ = secure.ServeTLS(s.lns[lnTLS], "", "") })
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.Until)
		defer cancel()
		_ = web.Shutdown(ctx)
		_ = secure.Shutdown(ctx)
	}
}

// driverGone returns a channel that is closed when standard input has ended,
// which the driver holds open.
func driverGone() <-chan struct{} {
	gone := make(chan struct{})
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(gone)
	}()
	return gone
}

// handler answers HTTP.
func (s *servers) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", s.lines.ServeHTTP)
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		s.served(r.URL.RawQuery)
		_, _ = fmt.Fprintf(w, "%s %s", s.lines.Version, r.URL.RawQuery) // the client tells
	})
	mux.HandleFunc("GET /big", func(w http.ResponseWriter, r *http.Request) {
		s.served(r.URL.RawQuery)
		_, _ = fmt.Fprintf(w, "%s %s\n", s.lines.Version, r.URL.RawQuery)
		_, _ = io.WriteString(w, strings.Repeat("x", bigAnswer))
	})
	ws := websocket.Server{Handler: func(ws *websocket.Conn) {
		lingering := handoffhttp.Lingering(ws.Request().Context())
		for {
			var token string
			if err := websocket.Message.Receive(ws, &token); err != nil {
				return
			}
			s.served(token)
			answer := s.lines.Version + " " + token
			select {
			case <-lingering:
				_ = websocket.Message.Send(ws, answer+" last") // the client tells
				return
			default:
			}
			if err := websocket.Message.Send(ws, answer); err != nil {
				return
			}
		}
	}}
	mux.Handle("GET /ws", ws)
	return mux
}
