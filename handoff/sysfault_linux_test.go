package handoff_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/procs"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// sysErrnos are the errors that the calls of TestSystemCalls fail with.
var sysErrnos = []syscall.Errno{unix.ENOMEM, unix.ENOBUFS, unix.EMFILE, unix.EINTR, unix.EIO}

// envSysFaults is how many rows of TestSystemCalls run for each way of an upgrade, "all"
// for all, and envSysSeed what they are picked by.
const (
	envSysFaults = "BATON_SYSFAULTS"
	envSysSeed   = "BATON_SYSFAULTS_SEED"
)

// A way is a mode, and how its successors start.
type way struct {
	mode handoff.Mode
	hand bool // the test starts them, not the predecessor
}

func (w way) String() string {
	if w.hand {
		return string(w.mode) + ", by hand"
	}
	return string(w.mode)
}

// TestSystemCalls has one system call of one process fail in each upgrade: a call of each
// class, at each place where it is made, with each error. Whatever follows, one process
// serves, no request of a client fails, an upgrade that fails says which error it was, and
// the next one commits. TestSystemCallsShort has a row for each side and mode.
func TestSystemCalls(t *testing.T) {
	testenv.Long(t, "TestSystemCallsShort")
	t.Parallel()
	rows, seed := 2, uint64(1)
	if v := os.Getenv(envSysFaults); v == "all" {
		rows = -1
	} else if n, err := strconv.Atoi(v); err == nil {
		rows = n
	}
	if n, err := strconv.ParseUint(os.Getenv(envSysSeed), 10, 64); err == nil && n > 0 {
		seed = n
	}
	t.Logf("%s=%d", envSysSeed, seed)
	for _, w := range []way{{mode: handoff.Inherit}, {mode: handoff.Takeover}, {mode: handoff.Drain}, {handoff.Takeover, true}, {handoff.Drain, true}} {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			all := newSysLine(t, w).faults()
			rng := rand.New(rand.NewPCG(seed, uint64(len(w.String()))))
			rng.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
			if rows >= 0 {
				all = all[:min(rows, len(all))]
			}
			runSysFaults(t, w, all)
		})
	}
}

// TestSystemCallsShort is TestSystemCalls with a few rows.
func TestSystemCallsShort(t *testing.T) {
	t.Parallel()
	for w, faults := range map[way][]sysFault{
		{mode: handoff.Inherit}:  {{predecessor, "sendmsg", unix.ENOBUFS, 3}, {successor, "recvmsg", unix.ENOMEM, 2}, {successor, "execve", unix.ENOMEM, 1}},
		{mode: handoff.Takeover}: {{predecessor, "recvmsg", unix.ENOMEM, 4}, {successor, "sendmsg", unix.ENOBUFS, 2}, {predecessor, "clone", unix.ENOMEM, 1}},
		{mode: handoff.Drain}:    {{predecessor, "fcntl", unix.EMFILE, 1}, {successor, "rename", unix.EIO, 1}, {successor, "accept4", unix.EMFILE, 1}},
	} {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			runSysFaults(t, w, faults)
		})
	}
}

// runSysFaults has each fault happen in an upgrade of its own.
func runSysFaults(t *testing.T, w way, faults []sysFault) {
	var l *sysLine
	happened, committed := 0, 0
	for _, f := range faults {
		if l == nil {
			l = newSysLine(t, w)
		}
		hit, commits, err := l.upgrade(&f)
		if hit {
			happened++
		}
		if commits {
			committed++
		}
		if err != nil {
			t.Errorf("%v: %v\nlog of the upgrade:\n%s", f, err, l.since())
			l = nil // the next one begins anew
		}
	}
	if l != nil { // what the last one has left
		if _, commits, err := l.upgrade(nil); err != nil || !commits {
			t.Errorf("an upgrade without a fault: committed %v, %v\n%s", commits, err, l.since())
		}
	}
	t.Logf("%d faults, %d happened, %d upgrades committed", len(faults), happened, committed)
	if happened == 0 {
		t.Error("no fault happened: the test shows nothing")
	}
}

// A sysLine is a service under clients whose system calls can fail.
type sysLine struct {
	*service
	way     way
	calls   *injector
	clients *clients
	failed  int // requests so far
	read    int // of the log, before the upgrade
	heard   int // messages before it
}

func newSysLine(t *testing.T, w way) *sysLine {
	t.Helper()
	l := &sysLine{way: w, calls: newInjector(t)}
	l.service = newService(t, settings{
		Mode: w.mode, Sockets: []string{"tcp 127.0.0.1:0"}, State: true,
		Probation: 250 * time.Millisecond, Ready: time.Minute,
	})
	l.calls.begin(l.service)
	l.wait("owner")
	l.clients = startClients(t, l.wait("addrs").Addrs["0 tcp 127.0.0.1:0"])
	l.clients.count(1)
	return l
}

// since returns the log of the last upgrade.
func (l *sysLine) since() string { return l.log()[l.read:] }

// faults are the faults of each call that an upgrade makes.
func (l *sysLine) faults() (all []sysFault) {
	l.tb.Helper()
	l.calls.arm(l.pid(), nil)
	if commits, err := l.settle(l.pid(), l.trigger()); err != nil || !commits {
		l.tb.Fatalf("an upgrade without a fault: committed %v, %v", commits, err)
	}
	_, calls := l.calls.result()
	l.tb.Logf("calls: %v", calls)
	for who, classes := range calls {
		for class, n := range classes {
			if l.way.hand && who == successor && class == "execve" {
				continue // the test's
			}
			if class == "accept4" {
				n = min(n, 4) // most are the clients'
			}
			for nth := range n {
				for _, errno := range sysErrnos {
					all = append(all, sysFault{who, class, errno, nth + 1})
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b sysFault) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// trigger starts an upgrade. It returns the successor's command line, if the test starts it.
func (l *sysLine) trigger() (started int) {
	l.tb.Helper()
	if !l.way.hand {
		l.signal(syscall.SIGUSR2)
		return 0
	}
	l.calls.begin(l.service)
	return l.cmd.Process.Pid
}

// upgrade upgrades with a fault, if there is one. It reports whether that has happened and
// the upgrade is committed, and what is wrong.
func (l *sysLine) upgrade(f *sysFault) (hit, commits bool, err error) {
	l.tb.Helper()
	l.read, l.heard = len(l.log()), len(l.received())
	pred := l.pid()
	l.calls.arm(pred, f)
	commits, err = l.settle(pred, l.trigger())
	hit, _ = l.calls.result()
	if err != nil {
		return hit, commits, err
	}
	n := l.clients.count(10)
	if n.Failed > l.failed {
		err = fmt.Errorf("%d requests failed: %q", n.Failed-l.failed, n.Errors)
		l.failed = n.Failed
	}
	if !commits && !hit {
		err = errors.Join(err, errors.New("the upgrade failed without a fault"))
	}
	if log := l.since(); !commits && hit && !named(log, f) {
		err = errors.Join(err, errors.New("no error names the call"))
	}
	return hit, commits, err
}

// named reports whether a log names the call that has failed, and how.
func named(log string, f *sysFault) bool {
	// Go's runtime, at the start of the successor.
	for _, text := range []string{"standard file descriptor [0-2], errno=%d\n", "epollctl failed with %d\n"} {
		if regexp.MustCompile(fmt.Sprintf(text, int(f.errno))).MatchString(log) {
			return true
		}
	}
	call := map[string]string{"openat": "open ", "accept4": "accept"}
	log = strings.ToLower(log)                                                             // the C library writes "Input/output error"
	words := []string{cmp.Or(call[f.class], f.class), "can't be started", "file file+net"} // package net hides the call
	for _, word := range words {
		for _, text := range []string{f.errno.Error(), fmt.Sprintf("error %d", int(f.errno))} {
			if strings.Contains(log, word) && strings.Contains(log, text) {
				return true
			}
		}
	}
	return false
}

// settle waits until one process is left, which serves, and reports whether that is the
// successor.
func (l *sysLine) settle(pred, started int) (commits bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	state := ""
	for {
		heard := l.received()[l.heard:]
		says := func(pid int, kind handoff.EventKind) bool {
			return slices.ContainsFunc(heard, func(m message) bool { return m.PID == pid && m.Kind == string(kind) })
		}
		b, _ := os.ReadFile(l.set.pidFile())
		owner, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		left := procs.Marked(l.mark())
		committed, failed := says(pred, handoff.EventCommitted), says(pred, handoff.EventUpgradeFailed)
		state = fmt.Sprintf("processes %v, the PID file names %d, the predecessor %d has committed %v, failed %v", left, owner, pred, committed, failed)
		switch {
		case len(left) != 1 || owner != left[0]:
		case owner == pred && committed:
			return false, errors.New("committed, and the predecessor serves: " + state)
		case owner == pred && (failed || started != 0 && !slices.Contains(left, started) && !says(pred, handoff.EventUpgradeStarted)):
			return false, nil
		case owner != pred && says(owner, handoff.EventOwner):
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, errors.New("not one process that serves: " + state)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
