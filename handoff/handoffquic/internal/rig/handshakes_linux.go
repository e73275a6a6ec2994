package rig

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/seed-11c92bf9/baton/handoff"
)

// Handshakes counts new connections that come to a predecessor in its linger. Each client
// has an ID of its own choice for its first packets: it must not look like one of the
// server's.
type Handshakes struct {
	Dir     string
	Style   style // Baton or Long
	Command func(role string) *exec.Cmd
	Count   int64
}

// Misled is what Handshakes has counted.
type Misled struct {
	Connections, Failed, Strayed int64
	First                        error // of those that failed
}

func (m *Misled) String() string {
	return fmt.Sprintf("result: handshakes=%d failed=%d strayed=%d", m.Connections, m.Failed, m.Strayed)
}

// Do counts them.
func (h *Handshakes) Do(ctx context.Context) (*Misled, error) {
	m := new(Misled)
	r := Run{Service: Service{Dir: h.Dir, Style: h.Style, Mode: handoff.Takeover, Address: "127.0.0.1:0", Linger: 10 * time.Minute}, Command: h.Command, Upgrades: 1}
	var old *quic.Conn
	r.Between = func(n int) (err error) {
		if n == 0 {
			conf, to, err := r.Service.client()
			if err == nil { // it has the predecessor linger
				old, err = quic.DialAddr(ctx, to, conf, &quic.Config{KeepAlivePeriod: time.Second})
			}
			return err
		}
		defer func() { _ = old.CloseWithError(0, "") }()
		if err := h.count(ctx, &r.Service, m); err != nil {
			return err
		}
		return context.Cause(old.Context()) // else there was no predecessor to come to
	}
	_, err := r.Do(ctx)
	return m, err
}

func (h *Handshakes) count(ctx context.Context, s *Service, m *Misled) error {
	pid, err := s.pid()
	if err != nil {
		return err
	}
	conf, to, err := s.client()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var begun atomic.Int64
	for range 4 {
		wg.Go(func() {
			for begun.Add(1) <= h.Count && ctx.Err() == nil {
				got, err := handshake(ctx, to, conf)
				mu.Lock()
				m.Connections++
				switch {
				case err != nil:
					m.Failed++
					m.First = cmp.Or(m.First, err)
				case got != strconv.Itoa(pid):
					m.Strayed++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// handshake returns the process that answers on a new connection.
func handshake(ctx context.Context, to string, conf *tls.Config) (pid string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := quic.DialAddr(ctx, to, conf, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") }()
	req, err := http.NewRequest(http.MethodGet, "https://"+host+"/", nil)
	if err != nil {
		return "", err
	}
	res, err := (&http3.Transport{}).NewClientConn(c).RoundTrip(req)
	if err != nil {
		return "", err
	}
	return res.Header.Get("X-Pid"), res.Body.Close()
}
