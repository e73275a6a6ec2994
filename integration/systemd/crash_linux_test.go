package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// held is plain with sockets that systemd holds, from app.socket or in the store.
func (r *testRig) held(hold string, s settings) []load.Target {
	r.tb.Helper()
	set, targets := plain(s)
	set.listen = append(set.listen, restOfSocket()...)
	units := []string{"app.service"}
	if hold == holdSocket {
		units = append(units, "app.socket")
		r.must(r.m.WriteFile("/etc/systemd/system/app.socket.d/more.conf", "[Socket]\nListenStream="+lineAddress+"\n"))
	}
	r.must(r.install(r.ctx, set, units...))
	r.must(r.systemctl(r.ctx, append([]string{"enable"}, units...)...))
	r.must(r.start(r.ctx, "app.service"))
	return targets
}

// eachHold runs a test with each way in which sockets outlive a crash.
func eachHold(t *testing.T, f func(t *testing.T, hold string)) {
	for _, hold := range []string{holdSocket, holdStore} {
		t.Run(hold, func(t *testing.T) { f(t, hold) })
	}
}

// dial opens n connections to the service's lines.
func (r *testRig) dial(n int) []net.Conn {
	r.tb.Helper()
	var conns []net.Conn
	for range n {
		c, err := r.m.Dial(r.ctx, "tcp", lineAddress)
		r.must(err)
		r.tb.Cleanup(func() { _ = c.Close() })
		r.must(c.SetDeadline(time.Now().Add(patience)))
		conns = append(conns, c)
	}
	return conns
}

// greeted wants each connection to be served, by the process pid.
func greeted(t *testing.T, conns []net.Conn, pid int) {
	t.Helper()
	served := 0
	for i, c := range conns {
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasSuffix(line, fmt.Sprintf(" %d\n", pid)) {
			t.Errorf("connection %d: greeting %q, %v, want one of process %d", i, line, err, pid)
			continue
		}
		served++
	}
	t.Logf("%d of %d served by process %d", served, len(conns), pid)
}

// TestCrash kills the main process under load, before and after an upgrade. Those who wait in the queue then, and those who come
// before the next process is there, are served; what fails had been taken by the
// process that was killed.
func TestCrash(t *testing.T) {
	testenv.Long(t, "handoff.TestStoreCrash")
	eachHold(t, testCrash)
}

func testCrash(t *testing.T, hold string) {
	r := newTestRig(t, "")
	const gate = "/run/app-gate"
	r.must(r.m.WriteFile(gate, ""))
	targets := r.held(hold, settings{extra: []string{
		// A gap in which something can be done.
		"ExecStartPre=/bin/sh -c 'until test -e " + gate + "; do sleep 0.02; done'",
	}})
	c := r.load(targets...)
	var killed []int
	kill := func() {
		t.Helper()
		old := r.pid("app.service")
		r.must(r.systemctl(r.ctx, "kill", "--kill-who=main", "--signal=STOP", "app.service"))
		r.halted(old)
		queued := r.dial(20)
		r.must(os.Remove(r.m.Path(gate)))
		r.must(r.systemctl(r.ctx, "kill", "--kill-who=main", "--signal=KILL", "app.service"))
		killed = append(killed, old)
		r.await("app.service", map[string]string{"SubState": "start-pre", "NRestarts": fmt.Sprint(len(killed))})
		between := r.dial(20)
		r.must(r.m.WriteFile(gate, ""))
		r.await("app.service", map[string]string{"SubState": "running", "NRestarts": fmt.Sprint(len(killed))})
		pid := r.pid("app.service")
		if pid == old {
			t.Fatalf("the main process is %d, which was killed", pid)
		}
		greeted(t, queued, pid)
		greeted(t, between, pid)
		r.must(c.further(r.ctx, 5))
	}
	kill()
	if _, err := r.upgrade(r.ctx, "app.service", c, "v2"); err != nil {
		t.Fatal(err)
	}
	// No other process serves for the killed one.
	r.alone("app.service")
	kill()

	stats, failures, err := c.stop(r.ctx)
	r.must(err)
	j := newJudge(targets)
	for _, pid := range killed {
		r.must(j.killed(r.m.Path(ledgerDir), pid))
	}
	res := &result{Crashes: len(killed), Upgrades: 1}
	res.count(hold, stats, failures, j)
	for _, p := range res.Problems {
		t.Error(p)
	}
	t.Logf("%s; died with a killed process: %d, of which %d in its hand", res.line(), res.InFlight+res.InHand, res.InHand)
	if res.InFlight == 0 {
		t.Error("nothing was in flight: the test proves nothing")
	}
}

// alone waits until a unit has a single process.
func (r *testRig) alone(unit string) {
	r.tb.Helper()
	r.must(until(r.ctx, "end of the predecessors", func() (bool, error) {
		pids, err := r.processes(r.ctx, unit)
		return len(pids) == 1, err
	}))
}

// TestRestart restarts a service under load: systemd holds its sockets, and no
// request fails.
func TestRestart(t *testing.T) {
	testenv.Long(t, "handoff.TestStoreRestart")
	eachHold(t, testRestart)
}

func testRestart(t *testing.T, hold string) {
	r := newTestRig(t, "")
	targets := r.held(hold, settings{})
	c := r.load(targets...)
	for i, after := range []string{"start", "upgrade"} {
		old := r.pid("app.service")
		r.must(r.systemctl(r.ctx, "restart", "app.service"))
		if pid := r.pid("app.service"); pid == old {
			t.Errorf("after a %s: systemctl restart has succeeded, and the main process is still %d", after, pid)
		}
		r.must(c.further(r.ctx, 5))
		if i > 0 {
			break
		}
		if _, err := r.upgrade(r.ctx, "app.service", c, "v2"); err != nil {
			t.Fatal(err)
		}
	}
	// Whom a crash would find prepared is to be seen.
	status, err := r.m.Output(r.ctx, "baton", "status", appName)
	r.must(err)
	_, table, _ := strings.Cut(status, "\nSOCKET ")
	head, table, _ := strings.Cut(table, "\n")
	socket, _, _ := strings.Cut(table, "\n")
	if stored := hold == holdStore; strings.HasSuffix(head, "STORED") != stored || strings.HasSuffix(socket, "yes") != stored {
		t.Errorf("baton status with the sockets in a %s:\n%s", hold, status)
	}
	r.lossless(c)
	r.want("app.service", map[string]string{"ActiveState": "active", "NRestarts": "0"})
	r.silent("app.service", "Failed with result", "timed out", "Killing process")
}

// TestWatchdog halts the main process, before and after an upgrade: systemd
// starts another, and those who wait are served.
func TestWatchdog(t *testing.T) {
	testenv.Long(t, "handoff.TestSystemdWatchdog")
	r := newTestRig(t, "")
	r.held(holdStore, settings{extra: []string{"WatchdogSec=4"}})
	for i := range 2 {
		old := r.pid("app.service")
		r.must(r.systemctl(r.ctx, "kill", "--kill-who=main", "--signal=STOP", "app.service"))
		r.halted(old)
		conns := r.dial(3)
		r.await("app.service", map[string]string{"SubState": "running", "NRestarts": fmt.Sprint(i + 1)})
		pid := r.pid("app.service")
		if pid == old {
			t.Fatalf("the main process is %d, which hangs", pid)
		}
		greeted(t, conns, pid)
		if i == 0 {
			r.must(r.systemctl(r.ctx, "reload", "app.service"))
			r.alone("app.service")
		}
	}
	if n := strings.Count(r.journal(r.ctx, "app.service"), "Watchdog timeout"); n != 2 {
		t.Errorf("the journal has %d watchdog timeouts, want 2", n)
	}
}

// halted waits until each thread of a process has stopped, or systemd has ended it.
// Until one of them takes the signal, which on a busy machine is some time after it
// was sent, the others go on, and may accept a connection yet.
func (r *testRig) halted(pid int) {
	r.tb.Helper()
	r.must(until(r.ctx, "halt of the main process", func() (bool, error) {
		states, err := r.m.Output(r.ctx, "sh", "-c", fmt.Sprintf("grep -hs ^State: /proc/%d/task/*/status || true", pid))
		return strings.Count(states, "\n") == strings.Count(states, "(stopped)"), err
	}))
}

// TestExtend stops a service with a connection that is open for longer than
// TimeoutStopSec: the process asks for more time, and gets it.
func TestExtend(t *testing.T) {
	testenv.Long(t, "handoff.TestStopInUpgrade")
	r := newTestRig(t, "")
	set, _ := plain(settings{extra: []string{"TimeoutStopSec=2"}})
	r.must(r.install(r.ctx, set, "app.service"))
	r.must(r.start(r.ctx, "app.service"))
	r.must(r.systemctl(r.ctx, "reload", "app.service"))
	r.alone("app.service")
	c := r.dial(1)[0]
	lines := bufio.NewReader(c)
	ask := func(verb string) {
		t.Helper()
		if _, err := fmt.Fprintf(c, "%s q\n", verb); err != nil {
			t.Fatal(err)
		}
		if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, " q ") {
			t.Fatalf("%s: answer %q, %v", verb, line, err)
		}
	}
	greeting, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("greeting %q, %v", greeting, err)
	}
	done := make(chan error, 1)
	go func() { done <- r.systemctl(r.ctx, "stop", "app.service") }() // ends with the service
	r.await("app.service", map[string]string{"ActiveState": "deactivating"})
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
		ask("keep")
		select {
		case err := <-done:
			t.Fatalf("systemctl stop = %v while a connection is open", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	ask("bye")
	r.must(<-done)
	r.want("app.service", map[string]string{"ActiveState": "inactive", "Result": "success"})
	r.silent("app.service", "timed out", "Killing process")
}
