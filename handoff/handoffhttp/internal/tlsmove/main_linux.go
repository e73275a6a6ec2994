package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp/internal/rig"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
)

// envRole makes this program the service or the clients written in Go.
const envRole = "BATON_TLSMOVE_ROLE"

func main() {
	if takePart() {
		return
	}
	upgrades := flag.Int("upgrades", 200, "upgrades in each mode")
	modes := flag.String("modes", "inherit,takeover,drain", "modes to run in")
	clients := flag.Int("clients", 64, "clients: half of them Go's, a quarter Python's, an eighth each curl's and openssl's")
	limit := flag.Duration("limit", 2*time.Hour, "the program's own limit")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, *limit, fmt.Errorf("not done within %v", *limit))
	defer cancel()
	var all result
	status := 0
	for mode := range strings.SplitSeq(*modes, ",") {
		r, err := run(ctx, handoff.Mode(mode), *upgrades, *clients)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", mode, err)
			status = 1
		}
		fmt.Printf("%s: %s\n", mode, r)
		all.add(r)
	}
	if all.Failed != 0 || all.Wrong != 0 || all.handshakes != all.Connections || all.moves == 0 {
		status = 1
	}
	fmt.Printf("result: %s\n", all)
	os.Exit(status)
}

// takePart runs the role of this process, if it has one.
func takePart() bool {
	switch os.Getenv(envRole) {
	case "service":
		service().Main()
	case "client":
		goClients(os.Args[1:])
	default:
		return false
	}
	return true
}

// service echoes bodies, over TLS connections that move.
func service() *rig.Process {
	return &rig.Process{
		Handle: func(_ *rig.Process, mux *http.ServeMux) {
			mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				pause(r.Context(), time.Millisecond) // curl has none between its requests
				_, _ = w.Write(b)                    // the client tells
			})
		},
		Server: func(p *rig.Process, srv *http.Server) {
			srv.TLSConfig = &tls.Config{VerifyConnection: func(tls.ConnectionState) error {
				p.Count("handshake")
				return nil
			}}
		},
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// A result is what one run has counted.
type result struct {
	counts
	upgrades, moves int
	handshakes      uint64
}

func (r *result) add(o result) {
	r.counts.add(o.counts)
	r.upgrades += o.upgrades
	r.moves += o.moves
	r.handshakes += o.handshakes
}

func (r result) String() string {
	return fmt.Sprintf("upgrades=%d moves=%d requests=%d failed=%d wrong=%d handshakes=%d connections=%d",
		r.upgrades, r.moves, r.Requests, r.Failed, r.Wrong, r.handshakes, r.Connections)
}

// run upgrades a service in one mode.
func run(ctx context.Context, mode handoff.Mode, upgrades, clients int) (r result, err error) {
	dir, err := os.MkdirTemp("", "baton")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	cert, key, err := selfsigned.Write(dir, "localhost")
	if err != nil {
		return r, err
	}
	s, err := rig.Start(ctx, self("service"), rig.Settings{How: rig.Baton, Mode: mode, Dir: dir, Protocol: "tls", MoveTLS: true, Cert: cert, Key: key, Probation: time.Millisecond})
	if err != nil {
		return r, err
	}
	defer s.Kill()
	c, err := startClients(s.Settings.Addr, clients)
	if err != nil {
		return r, err
	}
	defer c.kill()
	for range upgrades {
		if err = upgrade(ctx, s); err != nil {
			break
		}
		r.upgrades++
	}
	// After an error too: what the clients count then is what became of their requests.
	var stopped error
	r.counts, stopped = c.stop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	_, serr := s.Stop(ctx)
	for _, m := range s.Messages() {
		if m.Kind == "exit" {
			r.handshakes += uint64(m.Counts["handshake"])
			if m.Linger != nil {
				r.moves += m.Linger.Moved
			}
		}
	}
	return r, errors.Join(err, stopped, serr)
}

// upgrade replaces the process, and waits for its end.
func upgrade(ctx context.Context, s *rig.Service) error {
	m, err := s.Upgrade(ctx)
	if err != nil {
		return err
	}
	end, err := s.Exit(ctx, m.PID)
	if err == nil && end.Linger == nil {
		err = errors.New("a predecessor has not reported its linger")
	}
	return err
}

// self returns the command that runs a role of this program.
func self(role string, args ...string) *exec.Cmd {
	return child(exec.Command("/proc/self/exe", args...), role)
}

// child has a process end with this one.
func child(cmd *exec.Cmd, role string) *exec.Cmd {
	cmd.Env = append(os.Environ(), envRole+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	return cmd
}
