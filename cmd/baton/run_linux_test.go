package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/fakesystemd"
	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// hangs is the ready timeout for an app that hangs. An app that does not hang has to be
// ready by then, on a busy machine too.
const hangs = "10s"

// TestRunUpgrades upgrades apps of each kind under clients that never retry.
func TestRunUpgrades(t *testing.T) {
	t.Parallel()
	for kind, flags := range map[string][]string{
		"plain":    {"--ready-notify"},
		"takeover": {"--socket", "c/s"},
		"inherit":  {"--socket", "c/s"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := runApp(t, nil, append(flags, "--listen", "web=tcp://127.0.0.1:0", "--stop-timeout", "1m"), goApp(t, kind)...)
			p := press(t, r.address(), load.Once, load.Keep)
			r.await("ready")
			for _, version := range []string{"two", "three", "four"}[:testenv.Times(1, 3)] {
				p.more(200)
				r.write("version", version)
				r.signal(syscall.SIGUSR2)
				done := "upgraded"
				if kind == "inherit" {
					done = "the app has upgraded itself"
				}
				// The predecessor may end before its successor has announced itself.
				r.awaitAll(done, "ended")
				p.until(version, func(s load.Stats) bool { return s.AnsweredLast == version })
			}
			p.until("connections served across an upgrade", func(s load.Stats) bool { return s.Crossed > 0 })
			s := p.clean()
			t.Logf("%s: %d connections, %d questions, %d failed, %d across an upgrade", kind, s.Connections, s.Questions, s.Failed, s.Crossed)
			r.stop()
			gone(t, r.dir)
		})
	}
}

// TestRunRollback makes new generations fail in each way, under load. The serving
// generation never stops.
func TestRunRollback(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"plain", "takeover"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			flags := []string{"--listen", "web=tcp://127.0.0.1:0", "--ready-notify", "--ready-timeout", hangs, "--stop-timeout", "1m"}
			r := runApp(t, nil, flags, goApp(t, kind)...)
			p := press(t, r.address(), load.Once, load.Keep)
			first := r.await("ready").PID
			plans := []string{"exit", "exit0", "hang"}
			if testing.Short() { // each kind has its share
				plans = map[string][]string{"plain": plans[:2], "takeover": plans[2:]}[kind]
			}
			for _, plan := range plans {
				r.write("plan", plan)
				r.signal(syscall.SIGUSR2)
				l := r.await("upgrade failed: the running app serves on")
				want := map[string]string{
					"exit": "it has ended before it was ready: exit status 3", "exit0": "it has ended before it was ready: exit status 0",
					"hang": "not ready within " + hangs + ": it has not said READY=1",
				}[plan]
				if l.Error != want || l.PID != first {
					t.Errorf("%s: %q, pid %d, want %q, pid %d", plan, l.Error, l.PID, want, first)
				}
				p.more(50)
			}
			r.signal(syscall.SIGUSR2)
			if l := r.await("ready"); l.PID == first {
				t.Errorf("the first process is ready again: %+v", l)
			}
			p.more(100)
			p.clean()
			r.stop()
		})
	}
}

// TestRunSignalsInUpgrade requests an upgrade and a stop during an upgrade.
func TestRunSignalsInUpgrade(t *testing.T) {
	t.Parallel()
	r := runApp(t, nil, []string{"--listen", "web=tcp://127.0.0.1:0", "--ready-notify"}, goApp(t, "plain")...)
	r.await("ready")
	r.write("plan", "hang")
	r.signal(syscall.SIGUSR2)
	hung := r.await("started").PID
	r.await("hangs")
	r.signal(syscall.SIGUSR2)
	r.await("an upgrade is under way or the app is not ready: the next upgrade is queued")
	// The first of the two upgrades fails, the second follows.
	if err := syscall.Kill(hung, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.await("upgrade failed: the running app serves on")
	r.await("upgraded")
	r.write("plan", "hang")
	r.signal(syscall.SIGUSR2)
	r.await("hangs")
	r.stop() // all processes
	gone(t, r.dir)
}

// TestRunStop expects that an app that ignores the stop signal is killed, on timeout or
// by a second signal.
func TestRunStop(t *testing.T) {
	t.Parallel()
	for _, twice := range []bool{false, true} {
		timeout := "50ms"
		if twice {
			timeout = "1h"
		}
		r := runApp(t, nil, []string{"--ready-notify", "--stop-timeout", timeout}, "sh", "-c", `trap "" TERM; echo '{"@message":"deaf"}' >&2; while :; do sleep 60; done`)
		r.await("deaf")
		r.signal(syscall.SIGTERM)
		r.await("sending the stop signal")
		if twice {
			r.signal(syscall.SIGINT)
		}
		if code := r.wait(); code != int(exitAppFailed) {
			t.Errorf("twice %t: baton run ended with %d, want %d", twice, code, exitAppFailed)
		}
		gone(t, r.dir) // the app's own children as well
	}
}

// TestRunForwards sends signals that the app has to get, and SIGINT, which baton run
// ignores because it was ignored at the start, as in the background of a shell script.
func TestRunForwards(t *testing.T) {
	t.Parallel()
	background := func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `trap "" INT; exec "$0" "$@"`}, cmd.Args...)
		cmd.Path = "/bin/sh"
	}
	r := runApp(t, background, nil, "sh", "-c", `
		for s in HUP QUIT USR1 WINCH; do trap "echo '{\"@message\":\"got $s\"}' >&2" $s; done
		trap 'exit 0' TERM
		echo '{"@message":"listens"}' >&2
		while :; do sleep 0.01; done`)
	r.await("listens")
	r.signal(syscall.SIGINT)
	for sig, name := range map[syscall.Signal]string{syscall.SIGHUP: "HUP", syscall.SIGQUIT: "QUIT", syscall.SIGUSR1: "USR1", syscall.SIGWINCH: "WINCH"} {
		r.signal(sig)
		r.await("got " + name)
	}
	r.signal(syscall.SIGTERM)
	if l := r.await("stopping"); l.Why != "signal SIGTERM" {
		t.Errorf("it stops because of %s, want SIGTERM", l.Why)
	}
	r.wait()
}

// TestRunCrashLoop upgrades an app that is down.
func TestRunCrashLoop(t *testing.T) {
	t.Parallel()
	r := runApp(t, nil, []string{"--ready-notify", "--restart-delay", "1h", "--restart-max-delay", "1h", "--listen", "tcp://127.0.0.1:0"}, "sh", "-c",
		`[ -e good ] && exec "$@"; exit 1`, "sh", "env", goApp(t, "plain")[1], os.Args[0], "plain")
	r.awaitLine("the app is down: restarting it", func(l line) bool { return l.Restarts == 1 })
	r.write("good", "")
	r.signal(syscall.SIGUSR2) // the restart would take an hour
	r.await("ready")
	r.stop()
}

// TestRunReadyAtSharedSocket probes the socket that both generations share. A new
// generation that does not accept must not count as ready.
func TestRunReadyAtSharedSocket(t *testing.T) {
	t.Parallel()
	for name, flag := range map[string]string{"tcp": "--ready-tcp=", "http": "--ready-http=http://"} {
		t.Run(name, func(t *testing.T) {
			if name != "http" {
				testenv.Long(t, "TestRunReadyAtSharedSocket")
			}
			t.Parallel()
			address := freeAddress(t)
			serve, ready := "http", "--ready-timeout="+hangs
			if name == "tcp" {
				serve = "plain"
			}
			r := runApp(t, nil, []string{"--listen", "web=tcp://" + address, flag + address, ready}, goApp(t, serve)...)
			first := r.await("ready").PID
			r.write("plan", "hang")
			r.signal(syscall.SIGUSR2)
			r.await("hangs")
			l := r.await("upgrade failed: the running app serves on")
			if l.PID != first || !strings.Contains(l.Error, "not ready within "+hangs+": ") || !strings.Contains(l.Error, "another process accepts at this address") {
				t.Errorf("%+v, want pid %d, and that another process accepts", l, first)
			}
			r.signal(syscall.SIGUSR2)
			r.await("upgraded")
			r.stop()
		})
	}
}

// TestRunManager has a service manager that reads nothing at first, for longer than
// baton waits. It gets the messages later.
func TestRunManager(t *testing.T) {
	t.Parallel()
	m := fakesystemd.New(t)
	m.Fill()
	r := runApp(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.Path) },
		[]string{"--ready-notify", "--listen", "web=tcp://127.0.0.1:0"}, goApp(t, "plain")...)
	// The first attempt has failed by then.
	r.awaitAll("ready", "did not send a message to the service manager")
	m.Read()
	n := m.Await(0, "\nREADY=1\n")
	r.signal(syscall.SIGTERM)
	m.Await(n, "\nSTOPPING=1\n")
	if code := r.wait(); code != 0 {
		t.Errorf("baton run ended with %d, want 0", code)
	}
}
