package servers_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// serveRaw answers each line with the generation and the line. Its connections
// move with the part of a line that they have sent.
func serveRaw(ctx context.Context, _ settings, up *handoff.Upgrader, ln *handoff.Listener) error {
	in, err := up.Conns("lines")
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { rawConn(ctx, up, nc, nil) })
		}
	})
	wg.Go(func() {
		for {
			select {
			case mc := <-in:
				nc := up.Track(mc.Conn)
				wg.Go(func() { rawConn(ctx, up, nc, mc.State) })
			case <-up.Done():
				return
			}
		}
	})
	if err := up.Ready(); err != nil {
		return err
	}
	<-up.Done()
	wg.Wait()
	return up.Shutdown(ctx)
}

func rawConn(ctx context.Context, up *handoff.Upgrader, nc net.Conn, begun []byte) {
	defer nc.Close()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-up.Done():
			_ = nc.SetReadDeadline(time.Unix(1, 0)) // calls Read back
		case <-ended:
		}
	}()
	in := bufio.NewReader(io.MultiReader(bytes.NewReader(begun), nc))
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err := up.SendConn(ctx, "lines", nc, []byte(line)); err == nil {
				return
			}
			return // not taken: this protocol ends the connection
		}
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(nc, "%s %s", generation(up), line); err != nil {
			return
		}
	}
}

// TestRawTCP keeps lines going over the same connections while the server is
// replaced.
func TestRawTCP(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := start(t, "raw", settings{Mode: mode})
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 16 {
			nc, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			wg.Go(func() {
				in := bufio.NewReader(nc)
				for k := 0; !closed(stop); k++ {
					_ = nc.SetDeadline(time.Now().Add(patience))
					for _, part := range []string{"line ", fmt.Sprintf("%d.%d\n", i, k)} {
						if _, err := io.WriteString(nc, part); err != nil {
							t.Errorf("connection %d, line %d: %v", i, k, err)
							return
						}
					}
					got, err := in.ReadString('\n')
					var gen, a, b int
					if _, serr := fmt.Sscanf(got, "%d line %d.%d\n", &gen, &a, &b); err != nil || serr != nil || a != i || b != k {
						t.Errorf("connection %d, line %d: %q, %v", i, k, got, err)
						return
					}
				}
			})
		}
		for range upgrades() {
			if r := s.upgrade(); r.Moved != 16 || r.Cut != 0 {
				t.Errorf("%d moved, %d cut, want 16 moved", r.Moved, r.Cut)
			}
		}
		close(stop)
		wg.Wait()
	})
}
