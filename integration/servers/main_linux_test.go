package servers_test

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/internal/testservice"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){
		"grpc":     func([]string) { serve(serveGRPC) },
		"fasthttp": func([]string) { serve(serveFast) },
		"raw":      func([]string) { serve(serveRaw) },
		"http":     func([]string) { serve(serveHTTP) },
		"shutdown": func([]string) { serve(serveShutdown) },
	})
}

const patience = 60 * time.Second

// settings are a service's, in its environment.
type settings struct {
	Mode   handoff.Mode
	Dir    string
	Plain  bool          // HTTP/1 only
	Linger time.Duration // zero means the default
}

const envSettings = "BATON_SERVERS"

// line is what a process writes.
type line struct {
	PID    int
	Kind   string
	Addr   string
	Err    string
	Report *handoff.Report
}

// say writes a line.
func say(l line) {
	l.PID = os.Getpid()
	b, err := json.Marshal(l)
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.Write(append(b, '\n'))
}

// serve runs a process of a service.
func serve(run func(ctx context.Context, set settings, up *handoff.Upgrader, ln *handoff.Listener) error) {
	err := func() error {
		var set settings
		if err := json.Unmarshal([]byte(os.Getenv(envSettings)), &set); err != nil {
			return err
		}
		up, err := handoff.New(&handoff.Config{
			Mode: set.Mode, ControlSocket: set.Dir + "/ctl/s", Probation: 20 * time.Millisecond, LingerTimeout: set.Linger,
			OnEvent: func(e handoff.Event) { say(line{Kind: string(e.Kind), Err: e.Reason, Report: e.Report}) },
		})
		if err != nil {
			return err
		}
		ctx := context.Background()
		ln, err := up.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		say(line{Kind: "listening", Addr: ln.Addr().String()})
		return run(ctx, set, up, ln)
	}()
	if err != nil {
		say(line{Kind: "failed", Err: err.Error()})
		os.Exit(1)
	}
	say(line{Kind: "exit"})
}

// generation names a process in responses.
func generation(up *handoff.Upgrader) string { return strconv.FormatUint(up.Generation(), 10) }

// A service is a line of processes under test.
type service struct {
	tb   testing.TB
	addr string
	line *testservice.Line[line]
}

func start(tb testing.TB, helper string, set settings) *service {
	tb.Helper()
	set.Dir = testenv.ShortDir(tb)
	b, err := json.Marshal(set)
	if err != nil {
		tb.Fatal(err)
	}
	cmd := testmain.Command(tb, helper)
	cmd.Env = append(cmd.Env, envSettings+"="+string(b))
	s := &service{tb: tb, line: testservice.New[line](strconv.Quote(set.Dir))}
	tb.Cleanup(func() {
		s.line.Kill()
		if tb.Failed() {
			tb.Logf("log of the service:\n%s", s.line.Log())
		}
	})
	if err := s.line.Start(cmd, nil); err != nil {
		tb.Fatal(err)
	}
	s.addr = s.wait("listening").Addr
	s.wait("owner")
	return s
}

func (s *service) wait(kinds ...string) line {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := s.line.Take(ctx, func(l line) bool { return slices.Contains(kinds, l.Kind) })
	if err != nil {
		s.tb.Fatalf("no %v: %v", kinds, err)
	}
	return l
}

// upgrade replaces the process and waits for its end, which it returns.
func (s *service) upgrade() handoff.Report {
	s.tb.Helper()
	var pid int
	for _, l := range s.line.Messages() {
		if l.Kind == "owner" {
			pid = l.PID
		}
	}
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		s.tb.Fatal(err)
	}
	if l := s.wait("committed", "upgrade-failed"); l.Kind != "committed" {
		s.tb.Fatalf("upgrade: %s", l.Err)
	}
	s.wait("owner")
	var report handoff.Report
	if l := s.wait("stopped"); l.Report != nil {
		report = *l.Report
	}
	if l := s.wait("exit", "failed"); l.Kind != "exit" {
		s.tb.Fatalf("exit: %s", l.Err)
	}
	return report
}

// upgrades is how many replacements a test makes under its load.
func upgrades() int { return testenv.Times(2, 5) }

// eachMode runs a test in each mode.
func eachMode(t *testing.T, f func(t *testing.T, mode handoff.Mode)) {
	for _, mode := range []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain} {
		t.Run(string(mode), func(t *testing.T) { f(t, mode) })
	}
}
