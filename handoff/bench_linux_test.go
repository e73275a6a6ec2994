package handoff_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// median of times, which it sorts.
func median[T ~int64 | ~float64](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

// BenchmarkAccept takes connections out of a full queue, by a plain listener and
// by one of ours in turn. The metric "ratio" is our rate to the plain one's:
// the median over pairs of rounds, each pair in the order that the one before
// had not.
func BenchmarkAccept(b *testing.B) {
	for _, network := range []string{"tcp4", "unix"} {
		b.Run(network, func(b *testing.B) {
			address := func(name string) string {
				if network == "unix" {
					return filepath.Join(testenv.ShortDir(b), name)
				}
				return "127.0.0.1:0"
			}
			plain, err := net.Listen(network, address("plain"))
			if err != nil {
				b.Fatal(err)
			}
			defer plain.Close()
			ours := net.Listener(handoff.NewTestListener(b, network, address("ours")))
			lns := []net.Listener{plain, ours}
			var took [2][]time.Duration
			var allocs [2][]int64
			var ratios []float64
			for b.Loop() {
				const pairs = 100
				for i := range pairs {
					var pair [2]time.Duration
					for j := range lns {
						k := (i + j) % 2
						d, n := acceptAll(b, lns[k])
						pair[k] = d
						took[k], allocs[k] = append(took[k], d), append(allocs[k], n)
					}
					ratios = append(ratios, float64(pair[0])/float64(pair[1]))
				}
			}
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(float64(median(took[0]).Nanoseconds())/queued, "plain-ns/accept")
			b.ReportMetric(float64(median(took[1]).Nanoseconds())/queued, "baton-ns/accept")
			b.ReportMetric(float64(median(allocs[0]))/queued, "plain-allocs/accept")
			b.ReportMetric(float64(median(allocs[1]))/queued, "baton-allocs/accept")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// queued is how many connections wait in a queue, less than net.core.somaxconn.
const queued = 100

// acceptAll fills the queue of ln, empties it, and returns the time and the
// allocations of the latter.
func acceptAll(tb testing.TB, ln net.Listener) (time.Duration, int64) {
	tb.Helper()
	clients, conns := make([]net.Conn, 0, queued), make([]net.Conn, 0, queued)
	for range queued {
		c, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
		if err != nil {
			tb.Fatal(err)
		}
		clients = append(clients, c)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for range queued {
		c, err := ln.Accept()
		if err != nil {
			tb.Fatal(err)
		}
		conns = append(conns, c)
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	for _, c := range slices.Concat(clients, conns) {
		if tc, ok := c.(*net.TCPConn); ok {
			_ = tc.SetLinger(0) // leaves no TIME_WAIT
		}
		_ = c.Close()
	}
	return took, int64(after.Mallocs - before.Mallocs)
}

// TestAcceptAllocs has Accept of ours allocate what a plain listener's does.
func TestAcceptAllocs(t *testing.T) {
	plain, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	ours := handoff.NewTestListener(t, "tcp4", "127.0.0.1:0")
	var allocs [2][]int64
	for range testenv.Times(5, 21) {
		for k, ln := range []net.Listener{plain, ours.Untracked()} {
			_, n := acceptAll(t, ln)
			allocs[k] = append(allocs[k], n)
		}
	}
	// Other goroutines' allocations count as well: less than one for each accept.
	if p, o := median(allocs[0]), median(allocs[1]); o > p+queued/2 {
		t.Errorf("%d connections: %d allocations, plain %d", queued, o, p)
	}
}

// The minimal programs: each has one listener, and its successor reports when it has
// accepted the connection that waits there. "asking" is plain tableflip whose successor
// dials its predecessor and waits for an answer; both handle the same signals as ours.
var emptyPrograms = []string{"exec", "tableflip", "asking", "inherit", "takeover"}

// clock is the time that all processes share, in nanoseconds.
func clock() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// emptyMain is one of the empty programs, in a folder of its own.
func emptyMain(args []string) {
	started := clock()
	kind, dir := args[0], args[1]
	accept := func(ln net.Listener) { // ends with the process
		if _, err := ln.Accept(); err == nil {
			fmt.Printf("accepted %d %d\n", os.Getpid(), clock())
		}
	}
	must := func(err error) {
		if err != nil {
			fmt.Printf("failed %d %q\n", os.Getpid(), err.Error())
			os.Exit(1)
		}
	}
	switch kind {
	case "exec":
		fmt.Printf("accepted %d %d\n", os.Getpid(), started)
		return
	case "tableflip", "asking":
		upg, err := tableflip.New(tableflip.Options{})
		must(err)
		sig := make(chan os.Signal, 1)
		signal.Notify(sig, syscall.SIGUSR2)
		if kind == "asking" {
			signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT)
			path := filepath.Join(dir, "control")
			control, err := upg.Listen("unix", path)
			must(err)
			if upg.HasParent() {
				must(askBare(path))
			}
			go answerBare(control) // ends with the process
		}
		ln, err := upg.Listen("tcp4", "127.0.0.1:0")
		must(err)
		if upg.HasParent() {
			go accept(ln)
		}
		must(upg.Ready())
		if !upg.HasParent() {
			fmt.Printf("ready %d %s\n", os.Getpid(), ln.Addr())
		}
		<-sig
		for err = upg.Upgrade(); err != nil && strings.Contains(err.Error(), "not ready yet"); err = upg.Upgrade() {
			runtime.Gosched() // its goroutine has not run since Ready
		}
		must(err)
	default:
		up, err := handoff.New(&handoff.Config{Mode: handoff.Mode(kind), ControlSocket: filepath.Join(dir, "ctl", "s")})
		must(err)
		ln, err := up.Listen(context.Background(), "tcp4", "127.0.0.1:0")
		must(err)
		if up.Generation() > 1 {
			go accept(ln)
		}
		must(up.Ready())
		if up.Generation() == 1 {
			fmt.Printf("ready %d %s\n", os.Getpid(), ln.Addr())
		}
	}
	testmain.Hang()
}

// askBare sends a question to a unix socket.
func askBare(path string) error {
	c, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer c.Close() // answered, or not
	if _, err := c.Write([]byte("?")); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// answerBare answers each connection.
func answerBare(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the connection
			defer c.Close() // answered, or not
			if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
				_, _ = c.Write([]byte("!")) // it may be gone
			}
		}()
	}
}

// firstAccept returns the time from SIGUSR2 until the successor has accepted its
// first connection; for "exec" the time from fork until main runs.
func firstAccept(tb testing.TB, kind string) time.Duration {
	tb.Helper()
	dir := testenv.ShortDir(tb)
	cmd := testmain.Command(tb, "empty", kind, dir)
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	start := clock()
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	_ = w.Close()
	pids := []int{cmd.Process.Pid}
	defer func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = cmd.Wait()
	}()
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	lines := bufio.NewReader(r)
	read := func(want string, rest any) int {
		tb.Helper()
		line, err := lines.ReadString('\n')
		if err != nil {
			tb.Fatalf("%s: %v, want %q", kind, err, want)
		}
		var pid int
		if _, err := fmt.Sscanf(line, want+" %d %v", &pid, rest); err != nil {
			tb.Fatalf("%s: %q, want %q: %v", kind, strings.TrimSpace(line), want, err)
		}
		return pid
	}
	var end int64
	if kind != "exec" {
		var addr string
		read("ready", &addr)
		c, err := net.Dial("tcp4", addr)
		if err != nil {
			tb.Fatal(err)
		}
		defer c.Close()
		start = clock()
		if err := cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			tb.Fatal(err)
		}
	}
	if pid := read("accepted", &end); pid != cmd.Process.Pid {
		pids = append(pids, pid)
	} else if kind != "exec" {
		tb.Fatalf("%s: the predecessor has accepted", kind)
	}
	return time.Duration(end - start)
}

// TestFirstAccept runs the empty programs that BenchmarkFirstAccept compares: each, or
// ours in a short run.
func TestFirstAccept(t *testing.T) {
	t.Parallel()
	all := len(emptyPrograms)
	for _, kind := range emptyPrograms[all-testenv.Times(2, all):] {
		if took := firstAccept(t, kind); took <= 0 {
			t.Errorf("%s: took %v", kind, took)
		}
	}
}

// BenchmarkFirstAccept upgrades empty programs: the time from SIGUSR2 until the
// successor's first accept, against plain tableflip ("ratio"), also for plain
// tableflip with a question and an answer, and against fork and exec alone, which
// are part of each ("above"). They are one binary, so that they differ in what they
// do: loading it and initializing its packages is in each.
//
// A round has each of them once, in the order that the one before had not. Times are
// the shortest of all rounds, which other load of the machine disturbs least, and so
// are the ratios. "paired" is the median of the ratios of rounds.
func BenchmarkFirstAccept(b *testing.B) {
	least := make(map[string]time.Duration)
	ratios := make(map[string][]float64)
	for b.Loop() {
		const rounds = 40
		for i := range rounds {
			took := make(map[string]time.Duration)
			for j, kind := range emptyPrograms {
				if i%2 == 1 {
					kind = emptyPrograms[len(emptyPrograms)-1-j]
				}
				took[kind] = firstAccept(b, kind)
			}
			for kind, d := range took {
				if l, ok := least[kind]; !ok || d < l {
					least[kind] = d
				}
				ratios[kind] = append(ratios[kind], float64(d)/float64(took["tableflip"]))
			}
		}
	}
	for kind, took := range least {
		b.ReportMetric(float64(took)/1e6, kind+"-ms")
		if kind != "exec" {
			b.ReportMetric(float64(took-least["exec"])/float64(took), kind+"-above")
		}
	}
	for _, ours := range emptyPrograms[2:] {
		b.ReportMetric(float64(least[ours])/float64(least["tableflip"]), ours+"-ratio")
		b.ReportMetric(median(ratios[ours]), ours+"-paired")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkState passes on a state blob of 1 GiB, against a plain write of the same
// size into memory ("ratio", of medians). It is written once and never copied.
func BenchmarkState(b *testing.B) {
	const size = 1 << 30
	for _, mode := range modes {
		b.Run(string(mode), func(b *testing.B) {
			s := newService(b, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Millisecond})
			s.startCommand(s.varied(variation{States: 1, StateSize: size, Unchecked: true}))
			s.wait("owner")
			var whole, plain []time.Duration
			for b.Loop() {
				for range 3 {
					m := s.upgrade()
					s.wait("states")
					s.wait("exit")
					whole = append(whole, m.Report.Durations.Transfer)
					plain = append(plain, writeBlob(b, size))
				}
			}
			b.ReportMetric(float64(median(whole))/float64(median(plain)), "ratio")
			b.ReportMetric(size/1e6/median(whole).Seconds(), "state-MB/s")
			b.ReportMetric(size/1e6/median(plain).Seconds(), "plain-MB/s")
			b.ReportMetric(0, "ns/op")
			s.stop()
		})
	}
}

// writeBlob returns the time of a write of size bytes into memory.
func writeBlob(tb testing.TB, size int) time.Duration {
	tb.Helper()
	start := time.Now()
	f, err := fdx.NewBlob("plain")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close() // not in the time: nor is the successor's close
	if err := errors.Join(stateOf(f, "state 0", size), fdx.Seal(f)); err != nil {
		tb.Fatal(err)
	}
	return time.Since(start)
}
