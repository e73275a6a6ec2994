package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// lines opens a connection, keeps silent for up to silent, and asks n questions
// in the protocol of package load.
func (w *worker) lines(ctx context.Context, network string, silent time.Duration, n int) error {
	defer w.hangUp()
	for i := range n {
		verb := "keep"
		if i == n-1 || ctx.Err() != nil {
			verb = "bye"
		}
		err := w.request(func(token string) (uint32, error) {
			if i == 0 {
				if err := w.dial(network); err != nil {
					return 0, err
				}
				if silent > 0 {
					sleep(ctx, time.Duration(w.rng.Int64N(int64(silent))))
				}
			}
			if err := w.nc.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
				return 0, err
			}
			if _, err := fmt.Fprintf(w.nc, "%s %s\n", verb, token); err != nil {
				return 0, err
			}
			if i == 0 { // it says who it is
				line, err := w.in.ReadString('\n')
				if err != nil {
					return 0, err
				}
				if !strings.HasPrefix(line, "baton ") {
					return 0, fmt.Errorf("%w: greeting %q", errWrong, line)
				}
			}
			line, err := w.in.ReadString('\n')
			if err != nil {
				return 0, err
			}
			end := " more\n"
			if verb == "bye" {
				end = " last\n"
			}
			text, ok := strings.CutSuffix(line, end)
			if !ok {
				return 0, fmt.Errorf("%w %q, want%q", errWrong, line, end)
			}
			pid, err := answered(text, token)
			if err == nil && verb == "bye" {
				if b, err := w.in.ReadByte(); err == nil {
					return pid, fmt.Errorf("%w: %q after the last answer", errWrong, b)
				} else if err != io.EOF {
					return pid, err
				}
			}
			return pid, err
		})
		if err != nil || verb == "bye" {
			return err
		}
		sleep(ctx, 10*time.Millisecond)
	}
	return nil
}

// datagram sends a datagram and waits for its answer.
func (w *worker) datagram(network string) error {
	return w.request(func(token string) (uint32, error) {
		if w.nc == nil {
			w.opened = now()
			d := net.Dialer{Timeout: clientTimeout}
			if network == "unixgram" {
				d.LocalAddr = &net.UnixAddr{Net: network, Name: fmt.Sprintf("@gauntlet-%d-%d-%d", os.Getpid(), w.id, *w.seq)}
			}
			nc, err := d.Dial(network, w.addr)
			if err != nil {
				return 0, err
			}
			w.nc = nc
		}
		if err := w.nc.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
			return 0, err
		}
		defer w.asked.ask(w.nc)()
		if _, err := io.WriteString(w.nc, token); err != nil {
			return 0, err
		}
		buf := make([]byte, 512)
		n, err := w.nc.Read(buf)
		if err != nil {
			return 0, err
		}
		return answered(string(buf[:n]), token)
	})
}

// asked are the sockets on which an answer to a datagram is awaited.
type asked struct {
	mu  sync.Mutex
	all map[net.Conn]struct{}
}

// ask adds a socket, until the function that it returns is called.
func (a *asked) ask(nc net.Conn) (answered func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = make(map[net.Conn]struct{})
	}
	a.all[nc] = struct{}{}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.all, nc)
	}
}

// gone bounds the wait of all.
func (a *asked) gone() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for nc := range a.all {
		_ = nc.SetReadDeadline(time.Now().Add(goneTimeout)) // a closed one waits for nothing
	}
}
