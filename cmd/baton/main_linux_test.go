package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/procs"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){"baton": batonMain, "service": serviceMain, "app": appMain, "instance": instanceMain, "outsider": outsiderMain})
}

// batonMain is the program itself, or an app below it that it executes without env(1)
// in between.
func batonMain(args []string) {
	if os.Args[0] == "./app" {
		appMain(args)
		return
	}
	os.Exit(int(run(args, os.Stdout, os.Stderr)))
}

// envService has the arguments of a service that is started without any.
const envService = "BATON_TEST_SERVICE"

// serviceMain is the service of the scripts. Its arguments are the mode, the time of
// probation and, if not c/s, the path of the control socket. In its working directory,
// the file "plan" says how the next process fails before Ready, a file "admin" has it
// listen on a second address, and a folder "run" gets its PID file.
func serviceMain(args []string) {
	if len(args) == 0 {
		args = strings.Fields(os.Getenv(envService))
	}
	switch readPlan() {
	case "exit":
		fmt.Fprintln(os.Stderr, "cannot read the settings")
		fmt.Fprintln(os.Stderr, "no space left on device")
		os.Exit(3)
	case "hang":
		testmain.Hang()
	}
	cfg := &handoff.Config{ControlSocket: "c/s", Version: "one"}
	if filepath.Base(os.Args[0]) == "two" {
		cfg.Version = "two"
	}
	if _, err := os.Stat("run"); err == nil {
		cfg.PIDFile = "run/pid"
	}
	if len(args) > 2 {
		cfg.Name, cfg.ControlSocket = "api", args[2]
	}
	serve(cfg, args[0], args[1], func(up *handoff.Upgrader) *handoff.Listener {
		ln, err := up.ListenNamed(context.Background(), "echo", "tcp", "127.0.0.1:0")
		must(err)
		if _, err := os.Stat("admin"); err == nil {
			_, err := up.ListenNamed(context.Background(), "admin", "tcp", "127.0.0.1:0")
			must(err)
		}
		return ln
	})
}

// TestScripts runs the scripts in testdata. Beside what testscript knows, they
// have
//
//	serve MODE PROBATION [COMMAND…]  start a service, by a command that gets its command line, and wait until it serves
//	connect                          open a connection to it, which has been answered
//	disconnect                       close it
//	await FILE TEXT                  wait until a file has that text
//	crash                            kill the service
//	exits STATUS COMMAND…            run a command that ends with that status
func TestScripts(t *testing.T) {
	t.Parallel()
	runScripts(t, "testdata")
}

// TestScriptsRoot runs the scripts that mount a file system.
func TestScriptsRoot(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "root")
	runScripts(t, "testdata/root")
}

func runScripts(t *testing.T, dir string) {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"baton", "service"} {
		cmd := testmain.Command(t, name)
		marker := ""
		for _, kv := range cmd.Env {
			if strings.HasSuffix(kv, "="+name) && strings.HasPrefix(kv, "BATON_TEST_HELPER=") {
				marker = kv
			}
		}
		script := fmt.Sprintf("#!/bin/sh\n%s GORACE=atexit_sleep_ms=0 exec %q \"$@\"\n", marker, cmd.Path)
		testenv.Program(t, filepath.Join(bin, name), []byte(script))
	}
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
			env.Setenv("SOCKET", filepath.Join(env.WorkDir, "c", "s"))
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			return os.Symlink(exe, filepath.Join(env.WorkDir, "two"))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"serve": serveCmd, "connect": connectCmd, "disconnect": disconnectCmd, "crash": crashCmd, "exits": exitsCmd,
			"await": awaitCmd,
		},
	})
}

// exitsCmd runs a command and compares its exit status.
func exitsCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND…")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%q ended with %s, want exit status %s", args[1:], got, args[0])
	}
}

// serveCmd starts a service. The other commands find its address and its processes in
// its working directory.
func serveCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: serve MODE PROBATION [COMMAND…]")
	}
	args = append(args[2:], "service", args[0], args[1])
	dir := ts.MkAbs(".")
	log, err := os.Create(filepath.Join(dir, "log"))
	ts.Check(err)
	r, w, err := os.Pipe()
	ts.Check(err)
	p, err := os.StartProcess("/bin/sh", append([]string{"sh", "-c", `exec "$@"`, "sh"}, args...), &os.ProcAttr{
		Dir: dir, Env: append(os.Environ(), "PATH="+ts.Getenv("PATH"), "BATON_TEST_SCRIPT="+dir),
		Files: []*os.File{nil, w, log}, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	ts.Check(err)
	_, _ = w.Close(), log.Close()
	ts.Defer(func() {
		killAll(dir)
		_, _ = p.Wait()
		_ = r.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && len(text) > 0 {
			ts.Logf("log of the service:\n%s", text)
		}
	})
	addr, err := bufio.NewReader(r).ReadString('\n')
	ts.Check(err)
	ts.Setenv("ADDR", strings.TrimSpace(addr))
}

// killAll kills the processes of a service and waits until they have ended.
func killAll(dir string) { procs.KillAll(scriptMark(dir)) }

// scriptMark is in the environment of a script's processes, with the script's folder.
func scriptMark(dir string) string { return "BATON_TEST_SCRIPT=" + dir + "\x00" }

func crashCmd(ts *testscript.TestScript, _ bool, _ []string) { killAll(ts.MkAbs(".")) }

// opened has the connections of the scripts, by folder.
var opened sync.Map

func connectCmd(ts *testscript.TestScript, _ bool, _ []string) {
	c, err := net.Dial("tcp", ts.Getenv("ADDR"))
	ts.Check(err)
	ts.Defer(func() { _ = c.Close() })
	ts.Check(c.SetDeadline(time.Now().Add(patience)))
	_, err = io.ReadFull(c, make([]byte, 1)) // the first byte of the service's greeting
	ts.Check(err)
	opened.Store(ts.Getenv("WORK"), c)
}

func disconnectCmd(ts *testscript.TestScript, _ bool, _ []string) {
	if c, ok := opened.LoadAndDelete(ts.Getenv("WORK")); ok {
		_ = c.(net.Conn).Close()
	}
}

// patience bounds each wait.
const patience = time.Minute

// awaitCmd waits until a file has a text; a background command writes there.
func awaitCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE TEXT")
	}
	for end := time.Now().Add(patience); ; {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && strings.Contains(string(text), args[1]) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s has no %q: %q", args[0], args[1], text)
		}
		<-time.After(5 * time.Millisecond) // no event to wait for
	}
}
