package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// notifySocketOf returns the NOTIFY_SOCKET of a process.
func notifySocketOf(tb testing.TB, pid int) string {
	tb.Helper()
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		if path, ok := strings.CutPrefix(string(kv), "NOTIFY_SOCKET="); ok {
			return path
		}
	}
	tb.Fatalf("the environment of pid %d has no NOTIFY_SOCKET", pid)
	return ""
}

// flood sends notifications with many descriptors and much text to path, until stop.
func flood(tb testing.TB, path string) (sent *atomic.Int64, stop func()) {
	tb.Helper()
	sent = new(atomic.Int64)
	var quit atomic.Bool
	var wg sync.WaitGroup
	null, err := os.Open(os.DevNull)
	if err != nil {
		tb.Fatal(err)
	}
	fd, err := fdx.Number(null)
	if err != nil {
		tb.Fatal(err)
	}
	text := []byte("READY=1\nMAINPID=1\nSTATUS=" + strings.Repeat("x", 60_000))
	rights := unix.UnixRights(slices.Repeat([]int{fd}, 250)...)
	for range 2 {
		wg.Go(func() {
			c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				tb.Error(err)
				return
			}
			defer c.Close()
			raw, err := c.SyscallConn()
			if err != nil {
				tb.Error(err)
				return
			}
			for !quit.Load() {
				_ = raw.Write(func(to uintptr) bool {
					err = unix.Sendmsg(int(to), text, rights, nil, 0)
					return !errors.Is(err, unix.EAGAIN)
				})
				switch {
				case err == nil:
					sent.Add(1)
				case !errors.Is(err, unix.ETOOMANYREFS): // too many are under way
					tb.Errorf("send to %s: %v", path, err)
					return
				}
			}
		})
	}
	return sent, sync.OnceFunc(func() {
		quit.Store(true)
		wg.Wait()
		_ = null.Close() // nothing was written
	})
}

// TestRunFlood upgrades an app while a process that is no part of it floods the notify
// socket with descriptors and text. baton run has few descriptors. READY=1 of the app gets
// through, and nothing that this process says counts.
func TestRunFlood(t *testing.T) {
	t.Parallel()
	r := runApp(t, nil, []string{"--ready-notify", "--listen", "web=tcp://127.0.0.1:0", "--stop-timeout", "1m"}, goApp(t, "plain")...)
	p := press(t, r.address(), load.Once)
	pid := r.await("started").PID
	r.await("ready")
	few := unix.Rlimit{Cur: 64, Max: 64}
	if err := unix.Prlimit(r.cmd.Process.Pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	sent, stop := flood(t, notifySocketOf(t, pid))
	defer stop()
	upgrades := testenv.Times(1, 6)
	for range upgrades {
		from := sent.Load()
		r.signal(syscall.SIGUSR2)
		r.awaitAll("upgraded", "ended")
		p.more(20)
		if sent.Load() == from {
			t.Error("that process has sent nothing during the upgrade")
		}
	}
	stop()
	t.Logf("%d upgrades, %d notifications with 250 descriptors each", upgrades, sent.Load())
	p.clean()
	r.stop()
	gone(t, r.dir)
}

// TestRunSweptNotifySocket removes the notify socket and its folder before an upgrade of baton
// run, and before one by the app itself, whose processes know the path from their start.
func TestRunSweptNotifySocket(t *testing.T) {
	t.Parallel()
	r := runApp(t, nil, []string{"--ready-notify", "--listen", "web=tcp://127.0.0.1:0"}, goApp(t, "plain")...)
	p := press(t, r.address(), load.Once)
	pid := r.await("started").PID
	r.await("ready")
	path := notifySocketOf(t, pid)
	for _, sweep := range []string{path, filepath.Dir(path)} {
		if err := os.RemoveAll(sweep); err != nil {
			t.Fatal(err)
		}
		r.signal(syscall.SIGUSR2)
		r.awaitAll("upgraded", "ended")
		p.more(20)
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	p.clean()
	r.stop()
	gone(t, r.dir)
}

// outsiderMain looks for notify sockets in a folder, sends to the paths of the other
// arguments, and says what it could do.
func outsiderMain(args []string) {
	if files, err := os.ReadDir(args[0]); err == nil {
		fmt.Println("has listed", files)
	} else if !errors.Is(err, fs.ErrPermission) {
		fmt.Println(err)
	}
	for _, path := range args[1:] {
		if c, err := net.Dial("unixgram", path); err == nil {
			fmt.Println("has connected to", path)
			_ = c.Close()
		}
	}
}

// TestRunOtherUser has another user look for the notify socket of root's baton run, whose
// app runs as a third user and says READY=1.
func TestRunOtherUser(t *testing.T) {
	testenv.Need(t, "root")
	t.Parallel()
	const appUID, outsiderUID = 65534, 65533
	bin := testenv.ShortDir(t)
	if err := os.Chmod(bin, 0o711); err != nil {
		t.Fatal(err)
	}
	app := goApp(t, "plain") // env X=app program plain
	program := filepath.Join(bin, "program")
	testenv.CopyProgram(t, app[2], program)
	app[2] = program
	drops := []string{"setpriv", fmt.Sprint("--reuid=", appUID), fmt.Sprint("--regid=", appUID), "--clear-groups"}
	r := runApp(t, nil, []string{"--ready-notify", "--listen", "web=tcp://127.0.0.1:0"}, slices.Concat(drops, app)...)
	pid := r.await("started").PID
	r.await("ready")
	path := notifySocketOf(t, pid)
	outsider := testmain.Command(t, "outsider", filepath.Dir(path), filepath.Join(filepath.Dir(path), "s"))
	names, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for line := range strings.Lines(string(names)) {
		if f := strings.Fields(line); len(f) == 8 && strings.HasPrefix(f[7], filepath.Dir(path)) {
			outsider.Args = append(outsider.Args, f[7])
			shown++
		}
	}
	if shown != 1 {
		t.Errorf("/proc/net/unix has %d sockets in %s, want 1", shown, filepath.Dir(path))
	}
	outsider.Path = program
	outsider.SysProcAttr.Credential = &syscall.Credential{Uid: outsiderUID, Gid: outsiderUID}
	out, err := outsider.CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("another user: %v %s", err, out)
	}
	r.stop()
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder after the end: %v, want none", err)
	}
}
