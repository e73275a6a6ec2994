package handofftls

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/internal/testservice"
)

// An end is what happens to a process at a step.
type end string

const (
	endKilled  end = "killed"
	endPaused  end = "paused"  // stopped, and continued while the predecessor waits
	endStopped end = "stopped" // stopped, and continued when the predecessor has given the connection up
)

// A killing is a process that meets an end at a step of a move.
type killing struct {
	step step
	end  end
}

// killings are those of a quick run, those of a whole run, and those of make tls-nonces
// alone: a predecessor waits for more than five seconds for a process that is stopped.
var killings = [][]killing{
	{{stepPartly, endKilled}, {stepSent, endPaused}},
	{{stepReceived, endKilled}, {stepAnswered, endKilled}, {stepMade, endStopped}, {stepStopped, endKilled}},
	{
		{stepUnread, endKilled},
		{stepUnread, endPaused},
		{stepUnread, endStopped},
		{stepReceived, endPaused},
		{stepReceived, endStopped},
		{stepMade, endKilled},
		{stepMade, endPaused},
		{stepRead, endKilled},
		{stepRead, endPaused},
		{stepRead, endStopped},
		{stepPartly, endPaused},
		{stepPartly, endStopped},
		{stepAnswered, endPaused},
		{stepAnswered, endStopped},
		{stepStopped, endPaused},
		{stepSent, endKilled},
	},
}

// envRounds has TestNoNonceTwiceInProcesses repeat each of its rows.
const envRounds = "BATON_TLS_ROUNDS"

// TestNoNonceTwiceInProcesses replaces a service under clients that send without pause.
// The last successor, or its predecessor, is killed or stopped at a step of a move.
// Recorders at the sockets of the clients, in this process, have then seen no nonce twice,
// and nothing of a predecessor in doubt.
func TestNoNonceTwiceInProcesses(t *testing.T) {
	t.Parallel()
	rounds, all := 1, false
	if text := os.Getenv(envRounds); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		rounds, all = n, true
	}
	var mu sync.Mutex
	var sum tally
	t.Run("steps", func(t *testing.T) {
		for when, rows := range killings {
			if when == 2 && !all {
				break
			}
			for _, k := range rows {
				t.Run(fmt.Sprintf("%s %s", k.step, k.end), func(t *testing.T) {
					t.Parallel()
					if when == 1 && !all {
						testenv.Long(t, "TestNoNonceTwice")
					}
					for range rounds {
						got := kill(t, k, false)
						if got.errs != nil {
							t.Fatal(got.errs)
						}
						mu.Lock()
						sum.add(got)
						mu.Unlock()
					}
				})
			}
		}
	})
	t.Logf("result: %s", sum)
	if all && (sum.moved < 50*int32(rounds) || sum.doubt < int32(rounds)) {
		t.Error("these are too few moves to show anything")
	}
}

// TestCarelessPredecessor is the control: a predecessor serves on a connection that its
// successor has, and the recorders find nonces that were used twice.
func TestCarelessPredecessor(t *testing.T) {
	t.Parallel()
	if got := kill(t, killing{}, true); !errors.Is(got.errs, errTwice) {
		t.Errorf("the recorders find %v, want nonces that were used twice", got.errs)
	}
}

// A tally counts moves, records, and what recorders have found.
type tally struct {
	moved, doubt, kept int32
	records            int
	errs               error
}

func (a *tally) add(b tally) {
	a.moved += b.moved
	a.doubt += b.doubt
	a.kept += b.kept
	a.records += b.records
	a.errs = errors.Join(a.errs, b.errs)
}

func (a tally) String() string {
	return fmt.Sprintf("moves=%d in-doubt=%d not-taken=%d records=%d", a.moved, a.doubt, a.kept, a.records)
}

const (
	recorded = 8 // connections
	replaced = 3 // processes
	planned  = 3 // the connection with which a process comes to a step
)

// A line is a service whose last process, or its predecessor, meets an end.
type line struct {
	t *testing.T
	*testservice.Line[report]
	plans plans
	k     killing
	sum   tally
}

// kill runs a service to the end of one of its processes.
func kill(t *testing.T, k killing, careless bool) tally {
	t.Helper()
	dir := testenv.ShortDir(t)
	l := &line{
		t: t, k: k, Line: testservice.New[report](strconv.Quote(dir)),
		plans: plans{Dir: dir, Addr: "127.0.0.1:0", Linger: patience},
	}
	defer l.Kill()
	if careless || k.end == endStopped {
		l.plans.Linger = 500 * time.Millisecond
	}
	old := l.start(plans{})
	l.plans.Addr = l.take("serving", old).Addr
	clients := startRecorders(t, l.plans.Addr)
	defer clients.finish()
	// The plan of a predecessor is that of the last but one.
	predecessor := k.step == stepStopped || k.step == stepSent
	mine := plans{Step: k.step, At: planned, Signal: syscall.SIGSTOP, Careless: careless}
	if k.end == endKilled {
		mine.Signal = syscall.SIGKILL
	}
	for n := 1; n < replaced; n++ {
		var plan plans
		if n == replaced-1 && (predecessor || careless) {
			plan = mine
		}
		next := l.start(plan)
		l.ended(old)
		old = next
	}
	clients.mayEnd.Store(careless || k.end != endPaused)
	var last int
	if predecessor || careless {
		last = l.start(plans{})
	} else {
		last = l.start(mine)
	}
	switch {
	case careless:
		l.ended(old)
	case predecessor:
		l.meet(old, old)
	default:
		l.meet(last, old)
	}
	clients.finish()
	if k.end == endKilled && !predecessor {
		l.ended(old) // it has served the rest
	} else {
		if err := syscall.Kill(last, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		l.ended(last)
	}
	l.sum.add(clients.found)
	return l.sum
}

// start starts the next process.
func (l *line) start(plan plans) (pid int) {
	l.t.Helper()
	plan.Dir, plan.Addr, plan.Linger = l.plans.Dir, l.plans.Addr, l.plans.Linger
	b, err := json.Marshal(plan)
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := testmain.Command(l.t, "service")
	cmd.Env = append(cmd.Env, envPlans+"="+string(b), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	if err := l.Start(cmd, nil); err != nil {
		l.t.Fatal(err)
	}
	return cmd.Process.Pid
}

// take waits for a report of a process.
func (l *line) take(kind string, pid int) report {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	m, err := l.Take(ctx, func(m report) bool { return m.Kind == kind && m.PID == pid })
	if err != nil {
		l.t.Fatalf("%q of process %d: %v", kind, pid, err)
	}
	if m.Err != "" {
		l.t.Fatalf("process %d: %s\n%s", pid, m.Err, l.Log())
	}
	return m
}

// ended waits for the end of a process.
func (l *line) ended(pid int) {
	l.t.Helper()
	m := l.take("exit", pid)
	l.sum.add(tally{moved: m.Moved, doubt: m.Doubt, kept: m.Kept})
}

// meet waits for a process to come to its step. One that was stopped continues, at once or
// when its predecessor has ended.
func (l *line) meet(pid, predecessor int) {
	l.t.Helper()
	l.take("fate", pid)
	if l.k.end == endKilled {
		return
	}
	awaitStop(l.t, pid)
	if l.k.end == endStopped {
		l.ended(predecessor)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		l.t.Fatal(err)
	}
	if l.k.end == endPaused {
		l.ended(predecessor)
	}
}

// awaitStop waits until a child is stopped.
func awaitStop(t *testing.T, pid int) {
	t.Helper()
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		var info unix.Siginfo
		err = unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil)
	}
	if err != nil {
		t.Fatalf("waitid: %v", err)
	}
}

// recorders are clients, each with a recorder at its socket.
type recorders struct {
	mayEnd atomic.Bool // connections may end now
	ending atomic.Bool
	wg     sync.WaitGroup

	mu    sync.Mutex
	found tally
}

// startRecorders starts clients, and returns when each has had an answer.
func startRecorders(t *testing.T, addr string) *recorders {
	t.Helper()
	rs := &recorders{}
	suite, _ := suiteOf(tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, nil)
	for range recorded {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(5 * patience)) // the exchange returns the error
		layer, err := (&client{Conn: nc, suite: suite}).handshake(tls.TLS_AES_128_GCM_SHA256)
		if err != nil {
			_ = nc.Close()
			t.Fatal(err)
		}
		p := peer{ends{layer}, nc}
		rs.wg.Go(func() { // ends with finish, or with the connection
			defer nc.Close()
			r := record(p)
			err := rs.talk(p)
			if rs.mayEnd.Load() {
				err = nil
			}
			_ = nc.(*net.TCPConn).CloseWrite() // it may have ended
			found := tally{errs: errors.Join(err, r.drain())}
			found.records = r.records
			rs.mu.Lock()
			defer rs.mu.Unlock()
			rs.found.add(found)
		})
	}
	return rs
}

// lastRequests are those of each client after finish.
const lastRequests = 20

// talk sends requests until finish.
func (rs *recorders) talk(p peer) error {
	for left := lastRequests; left > 0; {
		if rs.ending.Load() {
			left--
		}
		text := make([]byte, 1+rand.IntN(100))
		got := make([]byte, 1+len(text))
		if _, err := p.Write(text); err != nil {
			return err
		}
		if _, err := io.ReadFull(p, got); err != nil {
			return err
		}
		if !bytes.Equal(got[1:], text) {
			return fmt.Errorf("the answer to %x is %q", text, got)
		}
		if got[0] == markMoved && rand.IntN(50) == 0 {
			if err := p.update(byte(rand.IntN(2))); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish has the clients end, and waits for them.
func (rs *recorders) finish() {
	rs.ending.Store(true)
	rs.wg.Wait()
}
