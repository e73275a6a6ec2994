package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// asPID1 makes a command PID 1 of a PID namespace, as in a container.
func asPID1(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	testenv.Need(t, "unshare_pid")
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Fatal(err)
	}
	return func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"unshare", "--fork", "--pid", "--mount-proc", "--kill-child", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = unshare
	}
}

// signalChild signals PID 1 of the namespace, which is the only child.
func (r *running) signalChild(sig syscall.Signal) {
	r.t.Helper()
	parent := r.cmd.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", parent, parent))
	if err != nil {
		r.t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		r.t.Fatal(err)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		r.t.Fatal(err)
	}
}

// TestRunPID1Reaps runs apps as children of PID 1 that leave orphans which end at the
// same moment. baton waits for all of them and confuses no exit statuses.
func TestRunPID1Reaps(t *testing.T) {
	t.Parallel()
	const restarts, orphans = 5, 20
	r := runApp(t, asPID1(t), []string{"--restart-limit", fmt.Sprint(restarts), "--restart-delay", "1ms", "--restart-max-delay", "1ms"}, "sh", "-c", fmt.Sprintf(`
		for i in $(seq %d); do (sh -c 'exit 7' &) ; done
		exit 3`, orphans))
	reaped, ended := 0, 0
	for l := range r.lines {
		switch l.Message {
		case "an orphan has ended":
			switch l.Status {
			case "exit status 7", "killed by SIGKILL": // killed with the app's process group
				reaped++
			default:
				t.Errorf("an orphan: %q, want exit status 7", l.Status)
			}
		case "ended":
			if l.Status != "exit status 3" {
				t.Errorf("the app: %q, want exit status 3", l.Status)
			}
			ended++
		}
	}
	if code := r.wait(); code != int(exitAppFailed) {
		t.Errorf("baton run ended with %d, want %d", code, exitAppFailed)
	}
	if ended != restarts+1 || reaped == 0 || reaped > orphans*(restarts+1) {
		t.Errorf("%d ends of the app and %d orphans, want %d and up to %d", ended, reaped, restarts+1, orphans*(restarts+1))
	}
	t.Logf("%d ends of the app, %d orphans of %d before its group was killed", ended, reaped, orphans*(restarts+1))
}

// TestRunPID1Upgrades upgrades apps whose supervisor is PID 1, under load, and expects
// no zombie.
func TestRunPID1Upgrades(t *testing.T) {
	t.Parallel()
	for kind, flags := range map[string][]string{
		"plain":    {"--ready-notify"},
		"takeover": {"--socket", "c/s"},
		"inherit":  {"--socket", "c/s"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := runApp(t, asPID1(t), append(flags, "--listen", "web=tcp://127.0.0.1:0", "--stop-timeout", "1m"), goApp(t, kind)...)
			p := press(t, r.address(), load.Once, load.Keep)
			r.await("ready")
			for _, version := range []string{"two", "three"} {
				p.more(100)
				r.write("version", version)
				r.signalChild(syscall.SIGUSR2)
				l := r.awaitAny(func(l line) bool {
					return slices.Contains([]string{"ready", "the app has upgraded itself", "upgrade failed: the running app serves on"}, l.Message)
				}, "an upgrade")
				if l.Error != "" {
					t.Fatal(l.Message, l.Error)
				}
				p.until(version, func(s load.Stats) bool { return s.AnsweredLast == version })
				r.await("ended")
			}
			s := p.clean()
			t.Logf("%s: 2 upgrades below PID 1, %d connections, %d failed", kind, s.Connections, s.Failed)
			r.signalChild(syscall.SIGTERM)
			if code := r.wait(); code != 0 {
				t.Errorf("PID 1 ended with %d, want 0", code)
			}
			if !strings.Contains(r.text.String(), `"status":"exit status 0"`) {
				t.Error("the app's status is not in the log")
			}
		})
	}
}
