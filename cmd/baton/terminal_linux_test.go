package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/terminal"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

const columns, rows = 80, 24

// typed is what a command writes to a terminal.
type typed struct {
	t    *testing.T
	more chan struct{} // capacity 1: there is more

	mu   sync.Mutex
	text bytes.Buffer
}

// openTerminal opens a pseudo-terminal (pty(7)) and reads its output.
func openTerminal(t *testing.T) (*typed, *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	rc, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	cerr := rc.Control(func(fd uintptr) {
		err = errors.Join(
			unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0),
			unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
		if err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err := errors.Join(err, cerr); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := &typed{t: t, more: make(chan struct{}, 1)}
	var reading sync.WaitGroup
	reading.Go(func() { // ends when no process has the other end (EIO)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			out.mu.Lock()
			out.text.Write(buf[:n])
			out.mu.Unlock()
			select {
			case out.more <- struct{}{}:
			default: // already woken
			}
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = slave.Close() // may be closed already
		reading.Wait()
		_ = master.Close()
	})
	return out, slave
}

// so returns the output so far.
func (o *typed) so() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await waits for a text.
func (o *typed) await(want string) {
	o.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for !strings.Contains(o.so(), want) {
		select {
		case <-o.more:
		case <-timer.C:
			o.t.Fatalf("the terminal has no %q: %q", want, o.so())
		}
	}
}

// sequences matches what a terminal does not print.
var sequences = regexp.MustCompile(`\x1b\[[?0-9;]*[A-Za-z]|\r`)

// TestTerminal expects output on a terminal to have colours and live lines, and to fit
// its width and height.
func TestTerminal(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t)
	service := testmain.Command(t, "service", "takeover", "20ms")
	service.Dir = dir
	service.Env = append(service.Environ(), "BATON_TEST_SCRIPT="+dir, "GORACE=atexit_sleep_ms=0")
	service.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	service.Stdout = w
	err = service.Start()
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		killAll(dir)
		_ = service.Wait() // killed, or replaced
	})
	var addr string
	if _, err := fmt.Fscanln(r, &addr); err != nil {
		t.Fatal(err)
	}
	// on runs a command on a terminal, and meanwhile beside it.
	on := func(env []string, meanwhile func(*typed, *os.Process), args ...string) string {
		t.Helper()
		out, slave := openTerminal(t)
		cmd := testmain.Command(t, "baton", append(args, "--socket", filepath.Join(dir, "c", "s"))...)
		cmd.Env = append(append(cmd.Environ(), "GORACE=atexit_sleep_ms=0", "TERM=xterm", "NO_COLOR="), env...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, slave, slave
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if meanwhile != nil {
			meanwhile(out, cmd.Process)
		}
		_ = cmd.Wait() // its output is the result
		const mark = "this was all"
		if _, err := fmt.Fprintln(slave, mark); err != nil {
			t.Fatal(err)
		}
		out.await(mark)
		text, _, _ := strings.Cut(out.so(), mark)
		return text
	}
	const bold, red, green, el, up = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\r\x1b[K", "\x1b[H"

	status := on(nil, nil, "status")
	if !strings.Contains(status, bold+"server") || !strings.Contains(status, green+"serving") || strings.Contains(status, up) {
		t.Errorf("status: %q", status)
	}
	doctor := on(nil, nil, "doctor")
	if !strings.Contains(doctor, green+"ok") {
		t.Errorf("doctor: %q", doctor)
	}
	for line := range strings.SplitSeq(sequences.ReplaceAllString(doctor, ""), "\n") {
		// A test's path can be wider than the terminal.
		if utf8.RuneCountInString(line) > columns && !strings.Contains(line, dir) {
			t.Errorf("doctor: more than %d columns: %s", columns, line)
		}
	}
	for name, text := range map[string]string{
		"NO_COLOR":  on([]string{"NO_COLOR=1"}, nil, "status"),
		"TERM=dumb": on([]string{"TERM=dumb"}, nil, "status"),
		"--plain":   on(nil, nil, "status", "--plain"),
		"--json":    on(nil, nil, "status", "--json"),
	} {
		if strings.Contains(text, "\x1b") || !strings.Contains(text, "serving") {
			t.Errorf("%s: %q", name, text)
		}
	}

	// The linger is shown as a bar, which is erased at the end.
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	upgrade := on(nil, func(out *typed, _ *os.Process) {
		out.await("[....................] 1 of 1 connections open, cut in ")
		_ = c.Close() // ends the linger
	}, "upgrade", "--wait=linger")
	if bar := strings.LastIndex(upgrade, "connections open"); !strings.Contains(upgrade, green+"committed: ") || bar < 0 || !strings.Contains(upgrade[bar:], el) {
		t.Errorf("upgrade: %q", upgrade)
	}

	// Failures are red.
	if err := os.WriteFile(filepath.Join(dir, "plan"), []byte("exit"), 0o600); err != nil {
		t.Fatal(err)
	}
	if failed := on(nil, nil, "upgrade"); !strings.Contains(failed, red+"baton:") || !strings.Contains(failed, "  | cannot read the settings\r\n") {
		t.Errorf("an upgrade that fails: %q", failed)
	}
	if status := on(nil, nil, "status"); !strings.Contains(status, red+"failed") {
		t.Errorf("status: %q", status)
	}

	// A page is no higher than the terminal.
	for range 8 {
		if err := os.WriteFile(filepath.Join(dir, "plan"), []byte("exit"), 0o600); err != nil {
			t.Fatal(err)
		}
		on(nil, nil, "upgrade", "--json")
	}
	watch := on(nil, func(out *typed, p *os.Process) {
		out.await(up) // the first page
		for strings.Count(out.so(), up) < 3 {
			<-out.more
		}
		if err := p.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
	}, "status", "--watch", "--interval", "10ms")
	pages := strings.Split(watch, up)[1:]
	for _, page := range pages[:2] {
		if lines := strings.Count(page, "\n"); lines >= rows || lines < 15 || !strings.Contains(page, "serving") || !strings.Contains(page, red+"failed") {
			t.Errorf("a page of %d lines on a terminal of %d: %q", lines, rows, page)
		}
	}
}

// TestHostileText shows what a hostile server sends: on a terminal in quotes, plain or
// not, elsewhere as it is.
func TestHostileText(t *testing.T) {
	const evil = "\x1b]52;c;eA==\a\nthe upgrade is committed"
	show := func(w io.Writer) {
		a := newApp(w)
		report := handoff.Report{Reason: evil, Outcome: handoff.Outcome(evil), Successor: handoff.Process{PID: 1, Version: evil}}
		a.showStatus(&handoff.Status{Name: evil, Version: evil, State: handoff.State(evil), Upgrades: []handoff.Report{report}}, false)
		a.screen = terminal.Sized(a.out, 0, 0) // --plain
		a.showEvent(handoff.Event{Kind: handoff.EventKind(evil), Reason: evil})
		a.showReport(&report, "")
		_ = a.examine([]check{{"server", func() finding { return finding{Verdict: ok, Found: evil} }}})
		fmt.Fprintln(w, shownOn(w, evil))
		fmt.Fprintln(w, "the end")
	}
	var pipe bytes.Buffer
	show(&pipe)
	if !strings.Contains(pipe.String(), "version      "+evil) {
		t.Errorf("in a pipe: %q, want the version as it is", pipe.String())
	}
	var text bytes.Buffer
	newApp(&text).printJSON(evil + "\u009b31m\U000e0001\"")
	if want := `"\u001b]52;c;eA==\u0007\nthe upgrade is committed\u009b31m\udb40\udc01\""` + "\n"; text.String() != want {
		t.Errorf("as JSON: %s, want %s", text.String(), want)
	}
	o, tty := openTerminal(t)
	show(tty)
	o.await("the end")
	if got := o.so(); strings.Contains(got, "\x1b]") || strings.Contains(got, "\nthe upgrade") || strings.Count(got, `\x1b]52;c;eA==\a`) < 6 {
		t.Errorf("on a terminal: %q", got)
	}
}
