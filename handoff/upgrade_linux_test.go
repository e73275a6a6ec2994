package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

var modes = []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain}

// eachMode runs a test in each mode.
func eachMode(t *testing.T, f func(*testing.T, handoff.Mode)) {
	t.Helper()
	t.Parallel()
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			f(t, mode)
		})
	}
}

// turn picks the rows of a table that the short run has in a mode: each row in one mode,
// and each mode in a third of the rows.
func turn(row int, mode handoff.Mode) bool { return modes[row%len(modes)] == mode }

// TestUpgradeAllNetworks upgrades a service with a socket of each kind, several
// times, while clients open connections on all of them without pause. Not one
// of them fails.
func TestUpgradeAllNetworks(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode})
		dir := s.set.Dir
		s.set.Sockets = []string{
			"tcp 127.0.0.1:0", "tcp 127.0.0.1:0", "tcp4 127.0.0.1:0", "tcp6 [::1]:0", "tcp :0",
			"udp 127.0.0.1:0", "udp4 127.0.0.1:0", "udp6 [::1]:0",
			"unix " + filepath.Join(dir, "u"), "unixpacket " + filepath.Join(dir, "p"), "unixgram " + filepath.Join(dir, "g"),
			"unix @baton-test-" + filepath.Base(dir),
			"main=tcp 127.0.0.1:0", "dgram=udp 127.0.0.1:0",
		}
		s.set.Files = []string{"blob"}
		s.start()
		addrs := s.wait("addrs").Addrs
		if len(addrs) != len(s.set.Sockets) {
			t.Fatalf("addresses: %v, want %d", addrs, len(s.set.Sockets))
		}
		l := newLoad(t, dir, addrs)
		upgrades := testenv.Times(2, 3)
		for i := range upgrades {
			l.run(20)
			m := s.upgrade()
			if got, want := m.Report.Sockets, len(s.set.Sockets)+len(s.set.Files); got != want {
				t.Errorf("Report.Sockets = %d, want %d", got, want)
			}
			next := s.waitFor("addrs", func(m message) bool { return m.Kind == "addrs" && m.Generation == uint64(i+2) })
			for id, addr := range addrs {
				if next.Addrs[id] != addr {
					t.Errorf("generation %d has %s at %s, want %s", i+2, id, next.Addrs[id], addr)
				}
			}
			s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == uint64(i+1) })
		}
		l.run(20)
		l.stop()
		if got := l.last.Load(); got != uint64(upgrades+1) {
			t.Errorf("generation that answered last: %d, want %d", got, upgrades+1)
		}
		t.Logf("%d questions answered, %d failed", l.asked.Load(), l.failed.Load())
		for _, m := range s.received() {
			if m.Kind == "file" && m.Err != "content of blob" {
				t.Errorf("file in generation %d holds %q", m.Generation, m.Err)
			}
		}
		s.stop()
		for _, name := range []string{"u", "p", "g"} {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				t.Errorf("unix socket %s is left after the end", name)
			}
		}
	})
}

// load asks questions at all addresses of a service, without pause.
type load struct {
	askers
	dir     string
	failed  atomic.Int64
	forgive atomic.Int64 // failures that are no fault: what a dead process had accepted
	last    atomic.Uint64
}

func newLoad(tb testing.TB, dir string, addrs map[string]string) *load {
	l := &load{askers: newAskers(tb), dir: dir}
	for id, addr := range addrs {
		network := strings.Fields(id)[1]
		if _, n, ok := strings.Cut(network, "="); ok {
			network = n
		}
		l.wg.Go(func() { l.loop(network, addr) }) // ends with stop
	}
	tb.Cleanup(l.stop)
	return l
}

func (l *load) loop(network, addr string) {
	var local net.Addr
	n := 0
	for {
		select {
		case <-l.quit:
			return
		default:
		}
		n++
		d := net.Dialer{Timeout: patience, LocalAddr: local}
		if network == "unixgram" { // the answer needs an address to go to
			name := filepath.Join(l.dir, fmt.Sprintf("c%d", n))
			d.LocalAddr = &net.UnixAddr{Name: name, Net: network}
			defer os.Remove(name)
		}
		gen, err := func() (uint64, error) {
			c, err := d.Dial(network, addr)
			if err != nil {
				return 0, err
			}
			defer c.Close()
			return askOver(c, fmt.Sprintf("q%d", n))
		}()
		l.asked.Add(1)
		if err != nil && l.forgive.Add(-1) >= 0 {
			continue
		}
		if err != nil {
			l.failed.Add(1)
			l.tb.Errorf("%s %s: %v", network, addr, err)
			return
		}
		for {
			old := l.last.Load()
			if gen <= old || l.last.CompareAndSwap(old, gen) {
				break
			}
		}
	}
}

// TestUpgradeOpenConnections leaves connections open over upgrades: they are
// served by the process that accepted them, until they end.
func TestUpgradeOpenConnections(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		check := func(want uint64) {
			t.Helper()
			if gen, err := askOver(c, "open"); err != nil || gen != want {
				t.Fatalf("open connection: generation %d, %v, want %d", gen, err, want)
			}
		}
		check(1)
		s.upgrade()
		check(1)
		if gen, err := ask("tcp", addr); err != nil || gen != 2 {
			t.Errorf("new connection: generation %d, %v, want 2", gen, err)
		}
		_ = c.Close()
		exit := s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 1 })
		stopped := func() (r *handoff.Report) {
			for _, m := range s.received() {
				if m.Kind == string(handoff.EventStopped) && m.PID == exit.PID {
					r = m.Report
				}
			}
			return r
		}()
		if stopped == nil || stopped.Open != 1 || stopped.Cut != 0 || stopped.Outcome != handoff.OutcomeCommitted {
			t.Errorf("report of the end: %+v, want one connection open at commit, none cut", stopped)
		}
		s.stop()
	})
}

// TestFailedUpgrade has the successor fail at each place in each way. The
// predecessor serves on, knows why, and nothing is left.
func TestFailedUpgrade(t *testing.T) {
	cases := []struct {
		at, how string
		want    string // sentinel
		stderr  string // in its last words
	}{
		{"start", "exit0", "ErrSuccessorDied", ""},
		{"start", "exit1", "ErrSuccessorDied", "a planned exit"},
		{"start", "panic", "ErrSuccessorDied", "a planned panic"},
		{"start", "hang", "ErrTimeout", ""},
		{"joined", "exit0", "ErrSuccessorDied", ""},
		{"joined", "panic", "ErrSuccessorDied", "a planned panic"},
		{"joined", "hang", "ErrTimeout", ""},
		{"joined", "abort", "ErrAborted", ""},
		{"listening", "exit1", "ErrSuccessorDied", "a planned exit"},
		{"probation", "exit0", "ErrSuccessorDied", ""},
		{"probation", "panic", "ErrSuccessorDied", "a planned panic"},
		{"probation", "abort", "ErrAborted", ""},
		{"probation", "stop", "ErrTimeout", ""},
		{"", "unhealthy", "ErrAborted", ""},
	}
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for i, c := range cases {
			t.Run(c.at+"/"+c.how, func(t *testing.T) {
				if !turn(i, mode) {
					testenv.Long(t, "TestFailedUpgrade")
				}
				t.Parallel()
				set := settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: 300 * time.Millisecond}
				if c.how == "hang" {
					set.Ready = 5 * time.Second // for the next one is to be ready in it, on any machine
				}
				if c.how == "stop" {
					set.Hang = soon
				}
				s := newService(t, set).start()
				addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
				pid := s.pid()
				before := openFiles(t, pid)
				l := newLoad(t, s.set.Dir, map[string]string{"0 tcp 127.0.0.1:0": addr})
				l.run(5)
				if c.at == "probation" { // one client, so one connection at most
					l.forgive.Store(1)
				}
				s.plan(plan{At: c.at, How: c.how})
				s.signal(syscall.SIGUSR2)
				m := s.waitFor("end of the upgrade", func(m message) bool { return m.Kind == "upgrade-failed" || m.Kind == "committed" })
				if m.Kind != "upgrade-failed" || len(m.Is) == 0 || m.Is[0] != c.want {
					t.Fatalf("upgrade: %s %v: %s, want %s", m.Kind, m.Is, m.Err, c.want)
				}
				if c.want == "ErrSuccessorDied" && !strings.Contains(m.Err, "its process ended: ") {
					t.Errorf("error does not say how the process ended:\n%s", m.Err)
				}
				if d := m.Report.Durations; c.want == "ErrSuccessorDied" && max(d.Warming, d.Probation) >= handoff.HangTimeout {
					t.Errorf("warming %v, probation %v: the end of a process is noticed at once, not after %v", d.Warming, d.Probation, handoff.HangTimeout)
				}
				// Inherit begins to read along when the successor calls New.
				unread := mode == handoff.Inherit && c.at == "start"
				if c.stderr != "" && strings.Contains(m.Err, c.stderr) == unread {
					t.Errorf("want the successor's last words %q in the error: %t:\n%s", c.stderr, !unread, m.Err)
				}
				if strings.Contains(m.Err, "is only in the standard error of this service") != unread {
					t.Errorf("want the error to say where the last words are: %t:\n%s", unread, m.Err)
				}
				eventually(t, "the successor's words are in the log of the service", func() bool {
					return strings.Contains(s.log(), c.stderr)
				})
				l.run(20)
				l.stop()
				if got := s.pid(); got != pid {
					t.Errorf("PID file after the failure: %d, want %d", got, pid)
				}
				eventually(t, "the successor is gone", func() bool {
					for _, p := range s.pidsSeen() {
						if p != pid && s.alive(p) {
							return false
						}
					}
					return true
				})
				kept := 0
				if mode == handoff.Inherit {
					kept = 1 // the slot, until the next upgrade
				}
				eventually(t, "the predecessor's descriptors are as before", func() bool {
					return len(openFiles(t, pid)) <= len(before)+kept
				})
				if _, err := os.Lstat(filepath.Join(s.set.Dir, ".pid.next")); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("a successor's PID file has been left: %v", err)
				}
				// The next one is as good as ever.
				s.upgrade()
				l = newLoad(t, s.set.Dir, map[string]string{"0 tcp 127.0.0.1:0": addr})
				l.run(20)
				l.stop()
				if got := l.last.Load(); got != 2 {
					t.Errorf("generation that answers: %d, want 2", got)
				}
				s.stop()
			})
		}
	})
}

// TestUpgradeContextEnded begins an upgrade with a context that has ended: no process
// starts.
func TestUpgradeContextEnded(t *testing.T) {
	t.Parallel()
	started := filepath.Join(t.TempDir(), "started")
	program := testenv.Script(t, "touch "+started+"\n")
	var events []handoff.EventKind
	up := newUpgrader(t, handoff.Config{Executable: program, OnEvent: func(e handoff.Event) { events = append(events, e.Kind) }})
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 200 {
				err := up.Upgrade(ctx)
				var failed *handoff.UpgradeError
				if errors.Is(err, handoff.ErrInProgress) {
					continue // another caller's
				}
				if !errors.As(err, &failed) || failed.PID != 0 || !errors.Is(err, context.Canceled) || !errors.Is(err, handoff.ErrRolledBack) {
					t.Errorf("Upgrade() = %v, want an UpgradeError without a pid that matches context.Canceled and ErrRolledBack", err)
				}
			}
		})
	}
	callers.Wait()
	if err := up.Close(); err != nil {
		t.Error(err)
	}
	events = slices.DeleteFunc(events, func(k handoff.EventKind) bool {
		return k != handoff.EventUpgradeStarted && k != handoff.EventUpgradeFailed
	})
	for i, k := range events {
		if want := []handoff.EventKind{handoff.EventUpgradeStarted, handoff.EventUpgradeFailed}[i%2]; k != want {
			t.Fatalf("event %d of %d is %s, want %s: an upgrade has begun before the end of the last one", i, len(events), k, want)
		}
	}
	if _, err := os.Stat(started); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the program was started: %v", err)
	}
}

// TestNoControlSocket upgrades a service whose control socket was removed: a successor
// that inherits the conversation does not need it.
func TestNoControlSocket(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		if err := os.Remove(controlOf(s)); err != nil {
			t.Fatal(err)
		}
		for generation := uint64(2); generation < 4; generation++ {
			s.upgrade()
			s.wait("exit")
			mustAnswer(t, addr, generation)
		}
		s.stop()
	})
}

// TestPIDFileRefused has the successor unable to write its PID file, as on a
// full disk: the upgrade fails while it still can.
func TestPIDFileRefused(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
		s.wait("addrs")
		pid := s.pid()
		obstacle := filepath.Join(s.set.Dir, ".pid.next")
		if err := os.MkdirAll(filepath.Join(obstacle, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
		if m := s.mustFail("PID file"); !slices.Contains(m.Is, "ErrAborted") {
			t.Errorf("upgrade: %v %s, want ErrAborted", m.Is, m.Err)
		}
		if got := s.pid(); got != pid || !s.alive(got) {
			t.Errorf("PID file: %d, want %d, which serves", got, pid)
		}
		if err := os.RemoveAll(obstacle); err != nil {
			t.Fatal(err)
		}
		s.upgrade()
		s.stop()
	})
}

// TestPIDFileAfterLinger has the PID file name the predecessor although the upgrade is
// committed, as after a commit that the successor has confirmed too late. At the end of the
// predecessor the successor writes it again.
func TestPIDFileAfterLinger(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		pred := s.pid()
		con, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer con.Close()
		if gen, err := askOver(con, "x"); err != nil || gen != 1 {
			t.Fatalf("generation %d, %v, want 1", gen, err)
		}
		s.signal(syscall.SIGUSR2)
		next := s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID != pred }).PID
		s.wait("lingering")
		if err := os.WriteFile(filepath.Join(s.set.Dir, "pid"), fmt.Appendln(nil, pred), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := con.Close(); err != nil {
			t.Fatal(err)
		}
		s.wait("predecessor-done")
		if got := s.pid(); got != next {
			t.Errorf("the PID file names %d, want %d, which serves", got, next)
		}
		s.stop()
	})
}

// openFiles lists the descriptors of a process.
func openFiles(tb testing.TB, pid int) map[string]string {
	tb.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	files := make(map[string]string)
	for _, n := range names {
		if target, err := os.Readlink(filepath.Join(dir, n.Name())); err == nil {
			files[n.Name()] = target
		}
	}
	return files
}
