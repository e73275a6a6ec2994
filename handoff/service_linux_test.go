package handoff_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// settings are what a service process reads from its environment, which
// its successors inherit.
type settings struct {
	Dir       string // its folder: control socket, PID file, plan of the next generation
	Run       string // the folder of the PID file, in Dir; empty means Dir
	Line      string // names the line of processes
	Mode      handoff.Mode
	Unnamed   bool // no control socket of its own (mode inherit)
	Probation time.Duration
	Ready     time.Duration
	Linger    time.Duration
	Hang      time.Duration // the silence after which a peer counts as hung; zero means the default
	Max       int           // MaxLingering
	Sockets   []string      // "network address" or "name=network address"
	Files     []string      // names of files that the first generation adds
	State     bool          // passes on a state blob, "log": a line for each generation
	BadState  bool          // whose writer fails
	Move      bool          // moves open connections to the successor
	KeepAlive time.Duration
	MPTCP     bool
	Reuseport bool
	Defer     bool // TCP_DEFER_ACCEPT: a connection is half-open until its client sends
	Greet     bool // answers an accept by a line with the process ID
	NoLogger  bool

	late *sync.WaitGroup // answers that are given after the end
}

func (set *settings) pidFile() string { return filepath.Join(set.Dir, set.Run, "pid") }

// soon is a hang timeout for a test that waits for it: time enough for a process that is
// not stopped, on a machine that has other work.
const soon = time.Second

const envSettings = "BATON_TEST_SETTINGS"

// A plan says what the next process of a service does; it reads it once, from
// the file "plan" in its folder.
type plan struct {
	// At says where it fails: "start" (before New), "joined" (after New),
	// "listening" (before Ready), "probation" (after Ready), "moving" (when its program
	// has got After connections that move), or nowhere.
	At    string
	After int
	// How: "exit0", "exit1", "panic", "hang" (does nothing more), "stop" (stops
	// itself with SIGSTOP), "kill" (kills itself), "abort", "unhealthy", "wait" (runs on when the file
	// "go" is there), "hold" (the same, and there is no commit meanwhile).
	How     string
	Sockets []string          // other sockets than settings say
	Flows   map[string]string // addresses of a service with flows, by name
	Mode    *handoff.Mode

	RequireAll bool // Config.RequireAll
}

// message is a line that a service writes for the test.
type message struct {
	PID        int
	Generation uint64
	Kind       string            // an EventKind, or "addrs", "exit", "upgrade"
	Addrs      map[string]string // by the string in settings.Sockets
	Err        string
	Is         []string // names of the sentinels that Err matches
	Report     *handoff.Report
	Address    string
	Engine     bool // a goroutine of tableflip's is left
	Leaked     int  // see variation.Leaks
}

// sentinels by name, for errors that cross a process boundary.
var sentinels = map[string]error{
	"ErrInProgress": handoff.ErrInProgress, "ErrNotReady": handoff.ErrNotReady,
	"ErrInProbation": handoff.ErrInProbation, "ErrNoUpgrade": handoff.ErrNoUpgrade,
	"ErrSuccessorDied": handoff.ErrSuccessorDied, "ErrPredecessorDied": handoff.ErrPredecessorDied,
	"ErrTimeout": handoff.ErrTimeout, "ErrAborted": handoff.ErrAborted, "ErrRolledBack": handoff.ErrRolledBack,
	"ErrPeerRefused": handoff.ErrPeerRefused, "ErrVersion": handoff.ErrVersion, "ErrProtocol": handoff.ErrProtocol,
	"ErrTransfer": handoff.ErrTransfer, "ErrCommitted": handoff.ErrCommitted, "ErrNotTaken": handoff.ErrNotTaken, "ErrInDoubt": handoff.ErrInDoubt,
	"ErrClosed": handoff.ErrClosed, "ErrUnsupported": handoff.ErrUnsupported,
	"ErrNotStored": handoff.ErrNotStored, "ErrMismatch": handoff.ErrMismatch,
}

func sentinelsOf(err error) []string {
	var is []string
	for name, s := range sentinels {
		if errors.Is(err, s) {
			is = append(is, name)
		}
	}
	return is
}

var sayMu sync.Mutex

// say writes one line to the test.
func say(m message) {
	m.PID = os.Getpid()
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	sayMu.Lock()
	defer sayMu.Unlock()
	_, _ = os.Stdout.Write(append(b, '\n'))
}

func fail(kind string, err error) {
	say(message{Kind: kind, Err: err.Error(), Is: sentinelsOf(err)})
	fmt.Fprintln(os.Stderr, kind+":", err)
	os.Exit(1)
}

// serviceMain is the program of a service: echo on every socket, with the
// generation in front.
func serviceMain([]string) {
	switch os.Getenv(envRole) {
	case "inheritor":
		inheritorMain()
		return
	case "nested":
		nestedMain()
		return
	}
	set := settings{late: new(sync.WaitGroup)}
	if err := json.Unmarshal([]byte(os.Getenv(envSettings)), &set); err != nil {
		fail("settings", err)
	}
	if set.Hang > 0 {
		handoff.SetHangTimeout(set.Hang)
	}
	v := readVariation()
	v.become(0) // the process before has dropped it
	p := readPlan(set.Dir)
	p.fail(set.Dir, "start", nil)
	mode := set.Mode
	if p.Mode != nil {
		mode = *p.Mode
	}
	planned := make(chan struct{})
	cfg := &handoff.Config{
		Mode: mode, Version: "v" + strconv.Itoa(os.Getpid()),
		ControlSocket: filepath.Join(set.Dir, "ctl", "s"),
		PIDFile:       set.pidFile(),
		Probation:     set.Probation, ReadyTimeout: set.Ready, LingerTimeout: set.Linger, MaxLingering: set.Max,
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Name: strconv.Itoa(os.Getpid())}),
		OnEvent: func(e handoff.Event) {
			say(message{Kind: string(e.Kind), Generation: e.Generation, Report: e.Report, Address: e.Address, Err: e.Reason, Is: sentinelsOf(e.Err)})
		},
		Healthy: func(ctx context.Context) error {
			if p.How == "unhealthy" {
				return errors.New("a planned failure")
			}
			if p.At == "probation" && p.How != "wait" {
				// No commit before the plan is carried out, however busy the machine is.
				select {
				case <-planned:
				case <-ctx.Done():
				}
			}
			return nil
		},
	}
	if set.NoLogger {
		cfg.Logger = nil
	}
	cfg.RequireAll = p.RequireAll
	if set.Unnamed {
		cfg.ControlSocket = ""
	}
	cfg.ListenConfig = &net.ListenConfig{KeepAlive: set.KeepAlive}
	if set.MPTCP {
		cfg.ListenConfig.SetMultipathTCP(true)
	}
	if set.Reuseport {
		cfg.ListenConfig.SetMultipathTCP(false)
		cfg.ListenConfig.Control = reuseport.Control(nil)
	}
	if set.Defer {
		cfg.ListenConfig.Control = deferAccept(cfg.ListenConfig.Control)
	}
	v.begin(cfg)
	up, err := handoff.New(cfg)
	if err != nil {
		fail("new", err)
	}
	waitForChildren := v.joined(up)
	p.fail(set.Dir, "joined", up)
	more := v.listen(up, set)
	sockets := set.Sockets
	if p.Sockets != nil {
		sockets = p.Sockets
	}
	addrs, err := listenAll(up, sockets, set)
	if err != nil {
		fail("listen", err)
	}
	maps.Copy(addrs, more)
	for _, name := range set.Files {
		if err := addFile(up, name); err != nil {
			fail("file", err)
		}
	}
	if set.State || set.BadState {
		if err := passState(up, set.BadState); err != nil {
			fail("state", err)
		}
	}
	var moved sync.WaitGroup
	if set.Move {
		in, err := up.Conns("echo")
		if err != nil {
			fail("connections", err)
		}
		moved.Go(func() {
			for n := 1; ; n++ {
				select {
				case mc := <-in:
					moved.Go(func() { echoConn(up, mc.Conn, mc.State, true) })
					if n == p.After {
						p.fail(set.Dir, "moving", up)
					}
				case <-up.Done():
					return
				}
			}
		})
	}
	go onRollback(up)
	p.fail(set.Dir, "listening", up)
	if err := up.Ready(); err != nil {
		fail("ready", err)
	}
	v.become(v.Drops)
	say(message{Kind: "addrs", Addrs: addrs, Generation: up.Generation()})
	p.fail(set.Dir, "probation", up)
	close(planned)
	if v.Nested {
		startChild("nested")
	}
	<-up.Done()
	waitForChildren()
	moved.Wait()
	set.late.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := up.Shutdown(ctx); err != nil {
		fail("shutdown", err)
	}
	m := message{Kind: "exit", Generation: up.Generation(), Engine: engineRuns()}
	if err := up.Err(); err != nil {
		m.Err, m.Is = err.Error(), sentinelsOf(err)
	}
	say(m)
}

// engineRuns reports whether tableflip's goroutine runs.
func engineRuns() bool {
	stacks := make([]byte, 1<<20)
	return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("tableflip.(*Upgrader).run"))
}

func readPlan(dir string) plan {
	var p plan
	path := filepath.Join(dir, "plan")
	b, err := os.ReadFile(path)
	if err != nil {
		return p
	}
	_ = os.Remove(path)
	if err := json.Unmarshal(b, &p); err != nil {
		fail("plan", err)
	}
	return p
}

// fail does what the plan says, if this is the place.
func (p plan) fail(dir, at string, up *handoff.Upgrader) {
	if p.At != at {
		return
	}
	switch p.How {
	case "exit0":
		os.Exit(0)
	case "exit1":
		fmt.Fprintln(os.Stderr, "a planned exit")
		os.Exit(1)
	case "panic":
		panic("a planned panic")
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		testmain.Hang() // until the kernel gets to it
	case "hang":
		say(message{Kind: "hangs"})
		testmain.Hang()
	case "stop":
		// The kernel delivers the signal to the thread that kill(2) names first. This
		// thread may run on until that one gets a processor.
		awake := make(chan os.Signal, 1)
		signal.Notify(awake, syscall.SIGCONT)
		say(message{Kind: "stops"})
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-awake
		signal.Stop(awake)
	case "abort":
		if err := up.Abort(errors.New("a planned abort")); err != nil {
			fail("abort", err)
		}
	case "wait", "hold":
		say(message{Kind: "waits"})
		for end := time.Now().Add(2 * patience); time.Now().Before(end); <-time.After(time.Millisecond) {
			if _, err := os.Stat(filepath.Join(dir, "go")); err == nil {
				return
			}
		}
		fail("wait", errors.New("the test does not let this process go on"))
	}
}

func listenAll(up *handoff.Upgrader, sockets []string, set settings) (map[string]string, error) {
	ctx := context.Background()
	addrs := make(map[string]string)
	for i, s := range sockets {
		name, rest, named := strings.Cut(s, "=")
		if !named {
			name, rest = "", s
		}
		network, address, _ := strings.Cut(rest, " ")
		id := fmt.Sprintf("%d %s", i, s)
		switch network {
		case "udp", "udp4", "udp6", "unixgram":
			var pc *handoff.PacketConn
			var err error
			if named {
				pc, err = up.ListenPacketNamed(ctx, name, network, address)
			} else {
				pc, err = up.ListenPacket(ctx, network, address)
			}
			if err != nil {
				return nil, err
			}
			addrs[id] = pc.LocalAddr().String()
			go echoPackets(up, pc, set.late)
		default:
			var ln *handoff.Listener
			var err error
			if named {
				ln, err = up.ListenNamed(ctx, name, network, address)
			} else {
				ln, err = up.Listen(ctx, network, address)
			}
			if err != nil {
				return nil, err
			}
			addrs[id] = ln.Addr().String()
			go echo(up, ln, set)
		}
	}
	return addrs, nil
}

// addFile adds a file in the first generation, and fetches it in the others.
func addFile(up *handoff.Upgrader, name string) error {
	f, err := up.File(name)
	if err == nil {
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		say(message{Kind: "file", Err: string(b)})
		return errors.Join(err, f.Close())
	}
	if !errors.Is(err, os.ErrNotExist) || up.Generation() != 1 {
		return err
	}
	tmp, err := os.CreateTemp("", "")
	if err != nil {
		return err
	}
	_ = os.Remove(tmp.Name())
	if _, err := tmp.WriteString("content of " + name); err != nil {
		return err
	}
	return up.AddFile(name, tmp)
}
