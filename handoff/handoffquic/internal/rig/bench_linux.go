package rig

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/seed-11c92bf9/baton/handoff"
)

// A Bench is a comparison, in one run, of a service before and after an upgrade with a
// plain quic-go server.
type Bench struct {
	Dir     string // for folders of the services
	Mode    handoff.Mode
	Command func(role string) *exec.Cmd
	Rounds  int
	Round   time.Duration
	Size    int64 // of the download from the predecessor
}

// Figures are what a Bench has measured.
type Figures struct {
	PlainBefore, Before, PlainAfter, After Rate
	CPU                                    time.Duration // of the successor, in the download
}

// A Rate is requests per second, and the server's processor time for one request, which
// other load of the machine changes less.
type Rate struct {
	Requests float64
	CPU      time.Duration
}

func (f *Figures) String() string {
	row := func(plain, baton Rate) string {
		return fmt.Sprintf("plain %.0f requests/s of %v, baton %.0f of %v: %.3f of the requests, %.3f of the processor time",
			plain.Requests, plain.CPU, baton.Requests, baton.CPU, baton.Requests/plain.Requests, float64(baton.CPU)/float64(plain.CPU))
	}
	return fmt.Sprintf("before the upgrade: %s\nafter the upgrade: %s\nsuccessor's processor time in the predecessor's download: %v", row(f.PlainBefore, f.Before), row(f.PlainAfter, f.After), f.CPU)
}

// Do measures.
func (b *Bench) Do(ctx context.Context) (*Figures, error) {
	f := new(Figures)
	plain := Run{Service: Service{Dir: b.Dir + "/plain", Style: Plain, Address: "127.0.0.1:0"}, Command: b.Command}
	baton := Run{Service: Service{Dir: b.Dir + "/baton", Style: Baton, Mode: b.Mode, Address: "127.0.0.1:0", Linger: time.Minute, Probation: 100 * time.Millisecond}, Command: b.Command, Upgrades: 1}
	for _, s := range []*Service{&plain.Service, &baton.Service} {
		if err := os.MkdirAll(s.Dir, 0o700); err != nil {
			return nil, err
		}
	}
	var old *quic.Conn
	var oldClient *http3.ClientConn
	baton.Between = func(n int) (err error) {
		to, plainTo := &f.Before, &f.PlainBefore
		if n == 1 {
			to, plainTo = &f.After, &f.PlainAfter
		}
		if *plainTo, *to, err = b.rates(ctx, &plain.Service, &baton.Service); err != nil {
			return err
		}
		if n == 0 {
			oldClient, old, err = baton.Service.dial(ctx)
			return err
		}
		defer func() { _ = old.CloseWithError(0, "") }()
		f.CPU, err = b.download(oldClient, &baton.Service)
		return err
	}
	plain.Between = func(int) error {
		_, err := baton.Do(ctx)
		return err
	}
	_, err := plain.Do(ctx)
	return f, err
}

// rates returns the medians of both, by turns.
func (b *Bench) rates(ctx context.Context, plain, baton *Service) (Rate, Rate, error) {
	var all [2][]Rate
	for range b.Rounds {
		for i, s := range []*Service{plain, baton} {
			r, err := s.rate(ctx, b.Round)
			if err != nil {
				return Rate{}, Rate{}, err
			}
			all[i] = append(all[i], r)
		}
	}
	return median(all[0]), median(all[1]), nil
}

func median(all []Rate) (m Rate) {
	slices.SortFunc(all, func(a, b Rate) int { return cmp.Compare(a.Requests, b.Requests) })
	m.Requests = all[len(all)/2].Requests
	slices.SortFunc(all, func(a, b Rate) int { return cmp.Compare(a.CPU, b.CPU) })
	m.CPU = all[len(all)/2].CPU
	return m
}

// rate measures on four connections.
func (s *Service) rate(ctx context.Context, d time.Duration) (Rate, error) {
	const conns = 4
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conf, to, err := s.client()
	if err != nil {
		return Rate{}, err
	}
	text, err := handshake(ctx, to, conf)
	if err != nil {
		return Rate{}, err
	}
	pid, err := strconv.Atoi(text)
	if err != nil {
		return Rate{}, err
	}
	before, err := cpuOf(pid)
	if err != nil {
		return Rate{}, err
	}
	var wg sync.WaitGroup
	var requests atomic.Int64
	failed := make(chan error, conns)
	began := time.Now()
	for range conns {
		wg.Go(func() {
			c, qc, err := s.dial(ctx)
			for err == nil && time.Since(began) < d {
				if _, err = get(c, "/"); err == nil {
					requests.Add(1)
				}
			}
			if qc != nil {
				_ = qc.CloseWithError(0, "")
			}
			failed <- err
		})
	}
	wg.Wait()
	var errs []error
	for range conns {
		errs = append(errs, <-failed)
	}
	n, took := requests.Load(), time.Since(began)
	after, err := cpuOf(pid)
	return Rate{float64(n) / took.Seconds(), (after - before) / time.Duration(max(n, 1))}, errors.Join(append(errs, err)...)
}

func get(c *http3.ClientConn, path string) (int64, error) {
	req, err := http.NewRequest(http.MethodGet, "https://"+host+path, nil)
	if err != nil {
		return 0, err
	}
	res, err := c.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, res.Body)
	return n, errors.Join(err, res.Body.Close())
}

// client returns what a client of the service needs: a configuration, and the address.
func (s *Service) client() (*tls.Config, string, error) {
	pem, err := os.ReadFile(s.path("cert.pem"))
	if err != nil {
		return nil, "", err
	}
	address, err := os.ReadFile(s.path("address"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots, ServerName: host, NextProtos: []string{http3.NextProtoH3}}, string(address), err
}

func (s *Service) dial(ctx context.Context) (*http3.ClientConn, *quic.Conn, error) {
	conf, address, err := s.client()
	if err != nil {
		return nil, nil, err
	}
	qc, err := quic.DialAddr(ctx, address, conf, nil)
	if err != nil {
		return nil, nil, err
	}
	return (&http3.Transport{}).NewClientConn(qc), qc, nil
}

// download returns the processor time of the process that serves while the predecessor
// answers on its connection.
func (b *Bench) download(c *http3.ClientConn, s *Service) (time.Duration, error) {
	pid, err := s.pid()
	if err != nil {
		return 0, err
	}
	before, err := cpuOf(pid)
	if err != nil {
		return 0, err
	}
	if n, err := get(c, "/?download="+strconv.FormatInt(b.Size, 10)); err != nil || n != b.Size {
		return 0, fmt.Errorf("download of %d bytes: %d, %w", b.Size, n, err)
	}
	after, err := cpuOf(pid)
	return after - before, err
}

// cpuOf returns the processor time of a process, to 10 ms (proc_pid_stat(5), USER_HZ).
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	system, serr := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, serr)
}
