package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// linger is the linger limit of the apps in the tests.
const linger = time.Minute

// appMain is an app below baton run. Its argument names its kind:
//
//	plain, http       knows only LISTEN_FDS and NOTIFY_SOCKET
//	mute              knows only LISTEN_FDS
//	inherit, takeover uses package handoff, with the control socket c/s; a second
//	                  argument is its time of probation
//
// It serves package load's questions on its first socket. On SIGHUP it stops accepting,
// on SIGUSR1 it panics. In its working directory, the file "plan" says how the next
// process fails before it is ready, and the file "version" has its version.
func appMain(args []string) {
	late := false
	switch readPlan() {
	case "wait":
		fmt.Fprintln(os.Stderr, `{"@message":"waits"}`)
		for _, err := os.Stat("go"); err != nil; _, err = os.Stat("go") {
			<-time.After(5 * time.Millisecond) // no event to wait for
		}
	case "hang late":
		late = true
	case "exit":
		os.Exit(3)
	case "exit0":
		os.Exit(0)
	case "hang":
		fmt.Fprintln(os.Stderr, `{"@message":"hangs"}`)
		testmain.Hang()
	}
	version := "one"
	if text, err := os.ReadFile("version"); err == nil {
		version = string(text)
	}
	generation, err := strconv.ParseUint(os.Getenv("BATON_GENERATION"), 10, 64)
	must(err)
	if args[0] == "plain" || args[0] == "http" || args[0] == "mute" {
		plainApp(args[0], &load.Service{Version: version, Generation: func() uint64 { return generation }})
		return
	}
	probation := "20ms"
	if len(args) > 1 {
		probation = args[1]
	}
	serve(&handoff.Config{ControlSocket: "c/s", Version: version}, args[0], probation, func(up *handoff.Upgrader) *handoff.Listener {
		ln, err := up.ListenNamed(context.Background(), "web", "tcp", "127.0.0.1:0")
		must(err)
		if late {
			fmt.Fprintln(os.Stderr, `{"@message":"hangs"}`)
			testmain.Hang()
		}
		return ln
	})
}

// readPlan returns the content of the file "plan" in the working directory, and removes
// it: it is for one process.
func readPlan() string {
	plan, err := os.ReadFile("plan")
	if err != nil {
		return ""
	}
	must(os.Remove("plan"))
	return strings.TrimSpace(string(plan))
}

// serve runs a service on package handoff that answers package load's questions on one
// listener.
func serve(cfg *handoff.Config, mode, probation string, listen func(*handoff.Upgrader) *handoff.Listener) {
	cfg.Mode = handoff.Mode(mode)
	var err error
	cfg.Probation, err = time.ParseDuration(probation)
	must(err)
	cfg.LingerTimeout = linger
	up, err := handoff.New(cfg)
	must(err)
	ln := listen(up)
	var loops sync.WaitGroup
	serveLoad(&loops, ln, &load.Service{Version: cfg.Version, Generation: up.Generation})
	must(up.Ready())
	if up.Generation() == 1 {
		fmt.Println(ln.Addr()) // for a test that reads it
	}
	<-up.Done()
	must(up.Shutdown(context.Background()))
	loops.Wait()
}

// plainApp is a program that knows no Baton. On SIGTERM it closes its listener, serves
// its open connections and ends.
func plainApp(kind string, s *load.Service) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		panic("LISTEN_PID=" + os.Getenv("LISTEN_PID"))
	}
	ln, err := fdx.Listener(3, "web")
	must(err)
	var loops sync.WaitGroup
	if kind == "http" {
		loops.Go(func() { _ = http.Serve(ln, s) }) // until the listener is closed
	} else {
		serveLoad(&loops, ln, s)
	}
	if kind != "mute" {
		c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		must(err)
		_, err = c.Write([]byte("STATUS=serving\nREADY=1"))
		must(err)
	}
	<-stop
	must(ln.Close())
	loops.Wait()
}

// serveLoad serves until the listener is closed, and its connections to their end.
func serveLoad(loops *sync.WaitGroup, ln net.Listener, s *load.Service) {
	s.Patience = linger
	odd := make(chan os.Signal, 1)
	signal.Notify(odd, syscall.SIGHUP, syscall.SIGUSR1)
	go func() { // ends with the process
		for sig := range odd {
			if sig == syscall.SIGUSR1 {
				panic("as the test wants it")
			}
			must(ln.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Unix(1, 0)))
		}
	}()
	loops.Go(func() {
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				fmt.Fprintln(os.Stderr, `{"@message":"accepts nothing"}`)
				return
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "accept:", err)
				return
			}
			loops.Go(func() {
				_ = s.ServeConn(c) // the client counts failures
				_ = c.Close()
			})
		}
	})
}
