package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/Scalingo/go-utils/graceful"
	"github.com/cloudflare/tableflip"
	"github.com/facebookgo/grace/gracehttp"
	"github.com/fvbock/endless"
	"github.com/hashicorp/go-hclog"
	"github.com/jpillora/overseer"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// A goServer is a server in Go that one of the libraries replaces.
type goServer struct {
	How  string
	Addr string
	Dir  string
}

// serverMain is a process of such a server.
func serverMain(args []string) error {
	var s goServer
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return err
	}
	if mode, ok := strings.CutPrefix(s.How, "baton-"); ok {
		return s.baton(mode)
	}
	switch s.How {
	case "tableflip":
		return s.tableflip()
	case "grace":
		return gracehttp.Serve(&http.Server{Addr: s.Addr, Handler: s.handler()})
	case "endless":
		return s.endless()
	case "overseer":
		s.overseer()
		return nil
	case "scalingo":
		return graceful.NewService().ListenAndServe(context.Background(), "tcp", s.Addr, s.handler())
	}
	return fmt.Errorf("no server %q", s.How)
}

// handler answers as the version that was installed when the process began.
func (s *goServer) handler() http.Handler {
	b, err := os.ReadFile(filepath.Join(s.Dir, "version"))
	if err != nil {
		panic(err) // it was written before the process was started
	}
	version := []string{strings.TrimSpace(string(b))}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header()["Version"] = version
		_, _ = io.WriteString(w, "hello\n") // the client will notice
	})
}

// baton is the README's, with a control socket of its own.
func (s *goServer) baton(mode string) error {
	cfg := &handoff.Config{
		Mode: handoff.Mode(mode), ControlSocket: filepath.Join(s.Dir, "control", "s"), NoSystemd: true,
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn}),
	}
	up, err := handoff.New(cfg)
	if err != nil {
		return err
	}
	ctx := context.Background()
	ln, err := up.Listen(ctx, "tcp", s.Addr)
	if err != nil {
		return err
	}
	return handoffhttp.Run(ctx, up, &http.Server{Handler: s.handler()}, ln)
}

// tableflip is the example of its documentation for net/http.
func (s *goServer) tableflip() error {
	upg, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return err
	}
	defer upg.Stop()
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGUSR2, syscall.SIGTERM)
	go func() { // ends with the process
		for got := range sig {
			if got == syscall.SIGTERM {
				upg.Stop()
				return
			}
			if err := upg.Upgrade(); err != nil {
				fmt.Fprintln(os.Stderr, "upgrade:", err)
			}
		}
	}()
	ln, err := upg.Listen("tcp", s.Addr)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: s.handler()}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }() // ends with Shutdown
	if err := upg.Ready(); err != nil {
		return err
	}
	<-upg.Exit()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = srv.Shutdown(ctx)
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

func (s *goServer) endless() error {
	err := endless.ListenAndServe(s.Addr, s.handler())
	if oe := (interface{ Timeout() bool })(nil); errors.As(err, &oe) {
		return nil // the closed listener
	}
	return err
}

// overseer follows its README but for one point: with http.Serve, as shown there,
// clients keep open connections to the old process until TerminateTimeout, 30 s, in
// which no process accepts.
func (s *goServer) overseer() {
	overseer.Run(overseer.Config{
		Address: s.Addr,
		Program: func(state overseer.State) {
			srv := &http.Server{Handler: s.handler()}
			go func() { // ends with the process
				<-state.GracefulShutdown
				srv.SetKeepAlivesEnabled(false)
			}()
			_ = srv.Serve(state.Listener) // ends when it is released
		},
	})
}

// goPeers are the libraries.
func goPeers() []*peer {
	var all []*peer
	add := func(name, what, how string, sig syscall.Signal, mainStays bool) {
		all = append(all, &peer{
			name: name, what: what, how: how, mainStays: mainStays,
			write: func(n *nest, version uint32) error { return n.put("version", "%d\n", version) },
			start: func(n *nest) error { return n.startSelf(name) },
			upgrade: func(n *nest) error {
				pids := n.processes()
				if len(pids) == 0 {
					return errors.New("no process is left")
				}
				pid := pids[len(pids)-1] // the newest
				if mainStays {
					pid = n.main
				}
				return n.signal(pid, sig)
			},
		})
	}
	for _, mode := range []string{"inherit", "takeover", "drain"} {
		add("baton-"+mode, "Baton, "+mode, "SIGUSR2", syscall.SIGUSR2, false)
	}
	add("tableflip", "tableflip v1.2.3 + Shutdown", "SIGUSR2", syscall.SIGUSR2, false)
	add("grace", "facebookgo/grace", "SIGUSR2", syscall.SIGUSR2, false)
	add("endless", "fvbock/endless", "SIGHUP", syscall.SIGHUP, false)
	add("overseer", "overseer v1.1.6", "SIGUSR2", syscall.SIGUSR2, true)
	add("scalingo", "Scalingo graceful v1.3.3", "SIGHUP", syscall.SIGHUP, false)
	return all
}

// startSelf starts this program as a server.
func (n *nest) startSelf(how string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd, err := n.command(exe)
	if err != nil {
		return err
	}
	b, err := json.Marshal(goServer{How: how, Addr: n.Addr, Dir: n.Dir})
	if err != nil {
		return err
	}
	cmd.Args = append(cmd.Args, string(b))
	cmd.Env = append(os.Environ(), envRole+"=server")
	return n.start(cmd)
}
