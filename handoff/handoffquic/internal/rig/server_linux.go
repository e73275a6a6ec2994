package rig

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/quic-go/quic-go/http3"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffquic"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
)

// A style is how the service has its UDP address.
type style string

// The styles.
const (
	Baton   style = "baton"  // handoffquic.Run
	Control style = "packet" // a control: http3.Server on handoff.PacketConn
	Plain   style = "plain"  // http3.Server on a socket of its own, never upgraded
	Long    style = "long"   // a control: as Baton, but with connection IDs of a length that clients choose as well
)

// A Service is the settings of a service, which its successors read from the environment
// as well.
type Service struct {
	Dir       string // its folder
	Mode      handoff.Mode
	Style     style
	Address   string
	Retry     bool
	Probation time.Duration
	Linger    time.Duration
	Grace     time.Duration
	Verbose   bool
}

const envService = "BATON_FLOWS_SERVICE"

// Environ returns the variable of the environment that has the settings.
func (s *Service) Environ() (string, error) {
	b, err := json.Marshal(s)
	return envService + "=" + string(b), err
}

// host is the name in the certificate.
const host = "flows.test"

func (s *Service) path(name string) string { return s.Dir + "/" + name }

// ServiceMain is the program of a service.
func ServiceMain([]string) {
	var s Service
	err := json.Unmarshal([]byte(os.Getenv(envService)), &s)
	if err == nil {
		err = s.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

// run is the life of a process.
func (s *Service) run() error {
	cert, err := tls.LoadX509KeyPair(s.path("cert.pem"), s.path("key.pem"))
	if err != nil {
		return err
	}
	srv := &http3.Server{
		Handler:   http.HandlerFunc(answer),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
	}
	ctx := context.Background()
	if s.Style == Plain {
		pc, err := net.ListenPacket("udp", s.Address)
		if err != nil {
			return err
		}
		if err := s.ready(pc.LocalAddr().String()); err != nil {
			return err
		}
		return srv.Serve(pc)
	}
	log := hclog.NewNullLogger()
	if s.Verbose {
		log = hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Name: strconv.Itoa(os.Getpid())})
	}
	up, err := handoff.New(&handoff.Config{
		Mode: s.Mode, ControlSocket: s.path("ctl/s"), PIDFile: s.path("pid"), MaxLingering: -1,
		Probation: s.Probation, LingerTimeout: s.Linger, Logger: log,
		OnEvent: func(e handoff.Event) { s.note(e) },
	})
	if err != nil {
		return err
	}
	switch s.Style {
	case Control:
		return s.runControl(ctx, up, srv)
	case Long:
		return s.runLong(ctx, up, srv)
	}
	cfg := &handoffquic.Config{Grace: s.Grace}
	if s.Retry {
		cfg.Retry = func(net.Addr) bool { return true }
	}
	h3, err := handoffquic.Start(ctx, up, srv, s.Address, cfg)
	if err != nil {
		return err
	}
	if err := s.ready(up.Status().Flows[0].Address); err != nil {
		return err
	}
	if err := up.Ready(); err != nil {
		return err
	}
	<-up.Done()
	if err := up.Shutdown(ctx); err != nil {
		return err
	}
	return h3.Wait()
}

// runControl serves by what there is without lanes.
func (s *Service) runControl(ctx context.Context, up *handoff.Upgrader, srv *http3.Server) error {
	pc, err := up.ListenPacket(ctx, "udp", s.Address)
	if err != nil {
		return err
	}
	if err := s.ready(pc.LocalAddr().String()); err != nil {
		return err
	}
	if err := up.Ready(); err != nil {
		return err
	}
	go func() { _ = srv.Serve(pc) }() // ends with the socket
	<-up.Done()
	<-time.After(s.Linger) // for the connections that it has
	return up.Shutdown(ctx)
}

// ready notes the address for the clients.
func (s *Service) ready(address string) error {
	if _, err := os.Stat(s.path("address")); err == nil {
		return nil // a successor has the same
	}
	tmp := s.path("address.next")
	if err := os.WriteFile(tmp, []byte(address), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, s.path("address"))
}

// note appends an event to the file of events.
func (s *Service) note(e handoff.Event) {
	f, err := os.OpenFile(s.path("events"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	var cpu syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &cpu)
	b, err := json.Marshal(struct {
		handoff.Event
		CPU time.Duration `json:"cpu"`
	}{e, time.Duration(cpu.Utime.Nano() + cpu.Stime.Nano())})
	if err == nil {
		_, _ = f.Write(append(b, '\n')) // the reader misses it
	}
}

// answer answers with the process ID and the hash of the request's body.
func answer(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	if _, err := io.Copy(h, r.Body); err != nil {
		return // the client sees it
	}
	w.Header().Set("X-Pid", strconv.Itoa(os.Getpid()))
	if n, err := strconv.ParseInt(r.URL.Query().Get("download"), 10, 64); err == nil {
		_, _ = io.CopyN(w, zeros{}, n)
		return
	}
	_, _ = io.WriteString(w, hex.EncodeToString(h.Sum(nil)))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// prepare makes the certificate.
func (s *Service) prepare() error {
	if _, _, err := selfsigned.Write(s.Dir, host); err != nil {
		return err
	}
	// The service may be of another user, and the certificate is for nothing else.
	return errors.Join(os.Chmod(s.path("cert.pem"), 0o644), os.Chmod(s.path("key.pem"), 0o644))
}

// pid returns the process that serves.
func (s *Service) pid() (int, error) {
	b, err := os.ReadFile(s.path("pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
