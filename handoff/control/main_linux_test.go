package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/internal/testservice"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){"service": serviceMain, "ask": askMain})
}

// patience bounds each wait for a process.
const patience = 20 * time.Second

// settings are what a service process gets through its environment, which
// its successors inherit.
type settings struct {
	Careless  bool // ends without Shutdown
	Dir       string
	Mode      handoff.Mode
	Probation time.Duration
	Linger    time.Duration
}

const envSettings = "BATON_TEST_CONTROL"

// serviceMain is a service that echoes lines. Its first argument is its version.
// The file "plan" in its folder says how the next process fails: "exit" or
// "hang", both before Ready.
func serviceMain([]string) {
	var set settings
	check(json.Unmarshal([]byte(os.Getenv(envSettings)), &set))
	if plan, err := os.ReadFile(filepath.Join(set.Dir, "plan")); err == nil {
		check(os.Remove(filepath.Join(set.Dir, "plan")))
		switch string(plan) {
		case "exit":
			fmt.Fprintln(os.Stderr, "the disk is full, says the successor")
			os.Exit(3)
		case "hang":
			testmain.Hang()
		}
	}
	up, err := handoff.New(&handoff.Config{
		Mode: set.Mode, ControlSocket: filepath.Join(set.Dir, "c", "s"), Version: filepath.Base(os.Args[0]),
		Probation: set.Probation, LingerTimeout: set.Linger, ReadyTimeout: patience,
	})
	check(err)
	ln, err := up.Listen(context.Background(), "tcp", "127.0.0.1:0")
	check(err)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	check(up.Ready())
	if up.Generation() == 1 {
		check(json.NewEncoder(os.Stdout).Encode(listening{ln.Addr().String()}))
	}
	<-up.Done()
	if set.Careless {
		return
	}
	check(up.Shutdown(context.Background()))
	conns.Wait()
	// What a program may have to do after Shutdown: a pipe with a name, which opens
	// and ends when the other side does.
	if f, err := os.Open(filepath.Join(set.Dir, "late")); err == nil {
		_, err := io.Copy(io.Discard, f)
		check(err)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// listening is the message of the first process.
type listening struct{ Addr string }

// service is a line of processes.
type service struct {
	*control.Client
	tb   testing.TB
	set  settings
	line *testservice.Line[listening]
	addr string
}

// start starts a service, which ends with the test.
func start(tb testing.TB, set settings) *service {
	tb.Helper()
	set.Dir = testenv.ShortDir(tb)
	if set.Probation == 0 {
		set.Probation = 50 * time.Millisecond
	}
	b, err := json.Marshal(set)
	if err != nil {
		tb.Fatal(err)
	}
	cmd := testmain.Command(tb, "service")
	cmd.Env = append(cmd.Environ(), envSettings+"="+string(b), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	s := &service{tb: tb, set: set, Client: client(tb, filepath.Join(set.Dir, "c", "s"))}
	s.line = testservice.New[listening](s.mark())
	tb.Cleanup(func() {
		s.line.Kill()
		if tb.Failed() {
			tb.Logf("log of the service:\n%s", s.line.Log())
		}
	})
	if err := s.line.Start(cmd, nil); err != nil {
		tb.Fatal(err)
	}
	m, err := s.line.Take(within(tb), func(listening) bool { return true })
	if err != nil {
		tb.Fatal(err)
	}
	s.addr = m.Addr
	return s
}

// mark is in the environment of the processes of the line: their folder, as JSON.
func (s *service) mark() string { return strconv.Quote(s.set.Dir) }

// status returns the service's status.
func (s *service) status() *handoff.Status {
	s.tb.Helper()
	st, err := s.Status(within(s.tb))
	if err != nil {
		s.tb.Fatal(err)
	}
	return st
}

// plan says how the next process fails.
func (s *service) plan(how string) {
	s.tb.Helper()
	if err := os.WriteFile(filepath.Join(s.set.Dir, "plan"), []byte(how), 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

// dial opens a connection that has been answered.
func (s *service) dial() net.Conn {
	s.tb.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { _ = c.Close() })
	if err := echo(c); err != nil {
		s.tb.Fatal(err)
	}
	return c
}

func echo(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// within returns a context that bounds the test's waiting.
func within(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

func client(tb testing.TB, socket string) *control.Client {
	tb.Helper()
	c, err := control.New(&control.Config{Socket: socket})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// askMain sends the server at the socket args[0] the request args[1], and prints the
// result.
func askMain(args []string) {
	c, err := control.New(&control.Config{Socket: args[0]})
	check(err)
	switch args[1] {
	case "status":
		_, err = c.Status(context.Background())
	case "exec":
		_, err = c.Upgrade(context.Background(), &control.UpgradeConfig{Executable: "/bin/true"})
	case "env":
		_, err = c.Upgrade(context.Background(), &control.UpgradeConfig{Env: []string{"LD_PRELOAD=/x.so"}})
	case "upgrade":
		_, err = c.Upgrade(context.Background(), &control.UpgradeConfig{Wait: control.WaitLinger, OnEvent: func(e handoff.Event) {
			fmt.Println(e.Kind)
		}})
	}
	fmt.Println("refused:", control.IsPeerRefused(err), err)
}

// askAs runs askMain as another user.
func askAs(tb testing.TB, uid uint32, args ...string) string {
	tb.Helper()
	cmd := testmain.Command(tb, "ask", args...)
	// The test binary may be in a folder that other users can't read.
	path := filepath.Join(openDir(tb), "ask")
	testenv.CopyProgram(tb, cmd.Path, path)
	cmd.Path = path
	cmd.Dir = "/"
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// openDir returns a folder that everybody can enter.
func openDir(tb testing.TB) string {
	tb.Helper()
	dir := testenv.ShortDir(tb)
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	return dir
}
