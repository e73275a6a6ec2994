//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// clientResult is what the clients saw.
type clientResult struct {
	Connections int64
	Errors      map[string]int
}

// Lost returns the number of connections that were not served.
func (r clientResult) Lost() (n int) {
	for _, k := range r.Errors {
		n += k
	}
	return n
}

// patience is far above every repetition of a SYN that a drain can cause, which
// takes a second.
const patience = 20 * time.Second

// load makes connections until in ends.
func load(cfg config, in io.Reader, out io.Writer) error {
	var stop atomic.Bool
	go func() { // ends with the parent's end of the pipe
		_, _ = io.Copy(io.Discard, in)
		stop.Store(true)
	}()
	addresses := []string{cfg.Address}
	if cfg.Network == "tcp" {
		_, port, err := net.SplitHostPort(cfg.Address)
		if err != nil {
			return err
		}
		addresses = []string{net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)}
	}
	var r clientResult
	r.Errors = make(map[string]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range cfg.Clients {
		wg.Go(func() { // ends when stop is set
			address := addresses[i%len(addresses)]
			var n int64
			for !stop.Load() {
				n++
				if err := exchange(address); err != nil {
					mu.Lock()
					r.Errors[kind(err)]++
					mu.Unlock()
				}
			}
			mu.Lock()
			r.Connections += n
			mu.Unlock()
		})
	}
	wg.Wait()
	return json.NewEncoder(out).Encode(r)
}

// exchange makes one connection, sends a byte and reads it back.
func exchange(address string) error {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	// A reset after the exchange leaves no TIME_WAIT, of which there would be
	// more than ports.
	if err := c.(*net.TCPConn).SetLinger(0); err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// kind names an error without addresses.
func kind(err error) string {
	op := ""
	var oe *net.OpError
	if errors.As(err, &oe) {
		op = oe.Op + ": "
	}
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return op + errno.Error()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return op + "timeout"
	}
	return op + err.Error()
}
