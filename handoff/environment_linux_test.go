package handoff_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// variation is what is unusual about the environment of a service, or what it does there.
type variation struct {
	NoUmask bool  // runs with umask 0
	Allow   []int // uids that Config.Allow lets in
	Drops   int   // effective uid of a service of root's that is ready, 0 means root's

	Executable string   // of Config
	Args       []string // likewise
	Chdir      string   // where it goes after New
	NoSignals  bool     // no upgrade signals: SIGUSR2 is the program's own
	Taken      bool     // in mode Inherit, another has taken its conversation
	Reopen     bool     // in every second generation, sockets are closed and bound anew

	// Children has it start processes all the time, each of which says what it
	// has inherited.
	Children bool
	// Nested has it start a process at each step that is a service of its own.
	Nested bool

	Crowd     int  // listeners, see crowd
	States    int  // state blobs
	StateSize int  // bytes of each
	Unchecked bool // nobody looks at what is in them
}

const envVariation = "BATON_TEST_VARIATION"

// varied returns the command line of a process of the service, with v.
func (s *service) varied(v variation) *exec.Cmd {
	s.tb.Helper()
	cmd := s.command()
	cmd.Env = append(cmd.Env, jsonEnv(s.tb, envVariation, v))
	return cmd
}

// readVariation returns the variation of this process: the zero one is none.
func readVariation() (v variation) {
	text := os.Getenv(envVariation)
	if text == "" {
		return v
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		fail("variation", err)
	}
	return v
}

// become sets the effective uid of a service that drops root's.
func (v *variation) become(uid int) {
	if v.Drops == 0 {
		return
	}
	if err := syscall.Setresuid(-1, uid, -1); err != nil {
		fail("uid", err)
	}
}

// begin comes before New.
func (v *variation) begin(cfg *handoff.Config) {
	if v.NoUmask {
		unix.Umask(0)
	}
	if v.Taken && os.Getenv(handoff.EnvTableflip) != "" {
		if err := handoff.TakeConversation(); err != nil {
			fail("conversation", err)
		}
	}
	cfg.Executable, cfg.Args = v.Executable, v.Args
	cfg.Allow = func(p handoff.Peer) bool { return slices.Contains(v.Allow, p.UID) }
	if v.NoSignals {
		cfg.UpgradeSignals = []os.Signal{}
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGUSR2)
		go func() { // ends with the process
			for range ch {
				say(message{Kind: "usr2"})
			}
		}()
	}
}

// joined comes after New. The function that it returns waits for the children.
func (v *variation) joined(up *handoff.Upgrader) (wait func()) {
	var children sync.WaitGroup
	if v.Children {
		startChild("inheritor")
		children.Go(func() { // ends with the service
			for {
				select {
				case <-up.Done():
					return
				default:
					startChild("inheritor")
				}
			}
		})
	}
	if v.Nested {
		startChild("nested")
	}
	return func() {
		children.Wait()
		if v.Children {
			startChild("inheritor")
		}
	}
}

// listen comes before the service listens; addrs are where it does so beside that.
func (v *variation) listen(up *handoff.Upgrader, set settings) (addrs map[string]string) {
	if v.Chdir != "" {
		if err := os.Chdir(v.Chdir); err != nil {
			fail("chdir", err)
		}
	}
	if v.Reopen && up.Generation()%2 == 0 {
		for _, socket := range set.Sockets {
			network, address, _ := strings.Cut(socket, " ")
			ln, err := up.Listen(context.Background(), network, address)
			if err == nil {
				err = ln.Close()
			}
			if err != nil {
				fail("reopen", err)
			}
		}
	}
	if v.Crowd > 0 {
		var err error
		if addrs, err = crowd(up, set.Dir, v.Crowd); err != nil {
			fail("listen", err)
		}
	}
	if v.States > 0 {
		if err := passStates(up, *v); err != nil {
			fail("states", err)
		}
	}
	return addrs
}

// envRole names the program that a child of a service is, see startChild.
const envRole = "BATON_TEST_ROLE"

// startChild runs this program in another role, as any program starts another,
// and passes on what it says.
func startChild(role string) {
	exe, err := os.Executable()
	if err != nil {
		fail(role, err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envRole+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	m := message{Kind: role}
	if err != nil {
		m.Err = fmt.Sprintf("%v: ", err)
	}
	m.Err += string(out)
	say(m)
}

// inheritorMain prints what it has inherited and should not.
func inheritorMain() {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		fmt.Print(err)
	}
	for _, n := range names {
		target, err := os.Readlink("/proc/self/fd/" + n.Name())
		if err != nil || ownFile(target) || slices.Contains([]string{"0", "1", "2"}, n.Name()) {
			continue // the folder's own is closed
		}
		fmt.Printf("descriptor %s is %s;", n.Name(), target)
	}
	for _, name := range []string{handoff.EnvConversation, handoff.EnvTableflip} {
		if v, ok := os.LookupEnv(name); ok {
			fmt.Printf("environment has %s=%s;", name, v)
		}
	}
}

// ownFile reports whether a descriptor is the Go runtime's own: its poller, and
// since Go 1.25 the limits that it reads again and again.
func ownFile(target string) bool {
	return target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]" || strings.HasPrefix(target, "/sys/fs/cgroup/")
}

// nestedMain is a service of its own in mode Inherit: it must not take itself
// for a successor. It prints what is wrong.
func nestedMain() {
	up, err := handoff.New(&handoff.Config{UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{}})
	if err != nil {
		fmt.Print(err)
		return
	}
	if up.Generation() != 1 {
		fmt.Printf("generation %d", up.Generation())
	}
	ln, err := up.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Print(err)
		return
	}
	if err := errors.Join(up.Ready(), ln.Close(), up.Close()); err != nil {
		fmt.Print(err)
	}
}

// copyBinary makes path a program that is this one, in a file of its own. It
// has cp(1) write it: a descriptor of ours that is open for writing could be
// inherited by a process that another test starts at that moment, and the
// program would be busy (Go issue 22315).
func copyBinary(tb testing.TB, path string) {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.Command("cp", "--", exe, path).CombinedOutput(); err != nil {
		tb.Fatalf("cp: %v: %s", err, out)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		tb.Fatal(err)
	}
}

// writeScript returns the path of a shell script. As in copyBinary, nobody has
// it open to write once it can be run.
func writeScript(tb testing.TB, text string) string {
	tb.Helper()
	path := filepath.Join(testenv.ShortDir(tb), "script")
	if err := os.WriteFile(path+".txt", []byte("#!/bin/sh\n"+text), 0o600); err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.Command("install", "-m", "755", path+".txt", path).CombinedOutput(); err != nil {
		tb.Fatalf("install: %v: %s", err, out)
	}
	return path
}

// TestChildren has a service start processes without pause while it is upgraded,
// and before it is ready: none of them inherits anything of the upgrade.
func TestChildren(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode})
		s.set.Sockets = []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0", "unix " + filepath.Join(s.set.Dir, "u")}
		// What a process of ours inherits is nobody's fault but that of who has started us.
		cmd := s.varied(variation{})
		cmd.Env = append(cmd.Env, envRole+"=inheritor")
		before, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		s.startCommand(s.varied(variation{Children: true, Nested: true}))
		s.wait("owner")
		const upgrades = 3
		for range upgrades {
			s.upgrade()
			s.wait("exit")
		}
		s.stop()
		heard := map[string]int{}
		for _, m := range s.heard() {
			if m.Kind != "inheritor" && m.Kind != "nested" {
				continue
			}
			heard[m.Kind]++
			if got := strings.Replace(m.Err, string(before), "", 1); got != "" {
				t.Errorf("%s of process %d: %s", m.Kind, m.PID, got)
			}
		}
		if heard["inheritor"] < 2*(upgrades+1) || heard["nested"] != 2*(upgrades+1) {
			t.Errorf("processes that were started: %v, want two of each in each generation at least", heard)
		}
	})
}

// TestDescriptors compares the descriptors of a successor with what it should
// have: after New, and when its predecessor is gone.
func TestDescriptors(t *testing.T) {
	testenv.Need(t, "pidfd")
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Files: []string{"blob"}, State: true})
		s.set.Sockets = []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0", "a=unix " + filepath.Join(s.set.Dir, "u")}
		s.start()
		real := openFiles(t, s.pid())["2"]
		// Each with the least and the most that there may be.
		type want map[string][2]int
		one := [2]int{1, 1}
		stdio := func(w want) want {
			for _, name := range []string{"0", "1", "2"} {
				w[name] = one
			}
			return w
		}
		joined := stdio(want{
			"tcp": one, "udp": one, "unix u": one, "blob": one, "control": one,
			"conversation": one, "state": one,
			"stderr":  one, // where standard error goes to in the end
			"capture": one, // the reading end of the pipe that it goes through until then
		})
		owner := stdio(want{"tcp": one, "udp": one, "unix u": one, "blob": one, "control": one, "capture": one})
		if mode == handoff.Inherit {
			// tableflip's: a copy of each for the next successor; two pipes to its parent;
			// the mailbox of the conversation, which is empty.
			joined["control"] = [2]int{2, 2}
			joined["pipe"] = [2]int{2, 2}
			joined["mailbox"], owner["mailbox"] = one, one
			for _, name := range []string{"tcp", "udp", "unix u", "blob", "control"} {
				owner[name] = [2]int{2, 2}
			}
		}
		check := func(when string, pid int, want want) {
			t.Helper()
			var got map[string]int
			ok := func() bool {
				got = roles(t, pid, real)
				for name, n := range got {
					if n > want[name][1] {
						return false
					}
				}
				for name, n := range want {
					if got[name] < n[0] {
						return false
					}
				}
				return true
			}
			defer func() {
				if t.Failed() {
					t.Logf("%s: %v, want %v", when, got, want)
				}
			}()
			eventually(t, "the descriptors of the successor are what they should be", ok)
		}
		for range 3 {
			s.plan(plan{At: "joined", How: "wait"})
			s.signal(syscall.SIGUSR2)
			pid := s.wait("waits").PID
			check("after New", pid, joined)
			s.let()
			s.wait("exit")
			check("at the end of the upgrade", pid, owner)
			if err := os.Remove(filepath.Join(s.set.Dir, "go")); err != nil {
				t.Fatal(err)
			}
		}
		s.stop()
	})
}

// roles counts the descriptors of a process by what they are for. real is where
// its standard error goes to in the end.
func roles(tb testing.TB, pid int, real string) map[string]int {
	tb.Helper()
	ours := openFiles(tb, os.Getpid())
	n := map[string]int{}
	for fd, target := range openFiles(tb, pid) {
		switch {
		case fd == "0", fd == "1", fd == "2":
			n[fd]++
		case ownFile(target), ours[fd] == target: // ours may be inherited from who has started us
		case strings.HasPrefix(target, "socket:"):
			n[socketRole(tb, pid, fd)]++
		case strings.HasPrefix(target, "/memfd:"):
			n["state"]++
		case strings.HasSuffix(target, " (deleted)"):
			n["blob"]++
		case target == real:
			n["stderr"]++
		case strings.HasPrefix(target, "pipe:"):
			if holdsBoth(tb, pid, target) {
				n["capture"]++
			} else {
				n["pipe"]++
			}
		default:
			n[target]++
		}
	}
	// Without its writing end in descriptor 2 the pipe is told by being the only one.
	if n["capture"] == 0 && n["pipe"] == 1 {
		n["capture"], n["pipe"] = 1, 0
		delete(n, "pipe")
	}
	return n
}

// holdsBoth reports whether a process has a pipe as its standard error.
func holdsBoth(tb testing.TB, pid int, target string) bool {
	tb.Helper()
	return openFiles(tb, pid)["2"] == target
}

// socketRole says what a socket of a process is.
func socketRole(tb testing.TB, pid int, name string) string {
	tb.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(pidfd)
	n, err := strconv.Atoi(name)
	if err != nil {
		tb.Fatal(err)
	}
	fd, err := unix.PidfdGetfd(pidfd, n, 0)
	if err != nil {
		return "gone" // closed meanwhile
	}
	defer unix.Close(fd)
	info, err := fdx.Info(fd)
	if errors.Is(err, unix.ENOTSOCK) {
		return "gone" // and another file has its number
	}
	if err != nil {
		tb.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		tb.Fatal(err)
	}
	switch a := sa.(type) {
	case *unix.SockaddrUnix:
		switch {
		case info.Type == unix.SOCK_DGRAM:
			return "mailbox"
		case !info.Listening:
			return "conversation"
		case filepath.Base(a.Name) == "s":
			return "control"
		}
		return "unix " + filepath.Base(a.Name)
	default:
		if info.Type == unix.SOCK_DGRAM {
			return "udp"
		}
		return "tcp"
	}
}

// TestNonblocking looks at the listeners of a service while it is upgraded,
// without pause: O_NONBLOCK, which all processes share, is never off.
func TestNonblocking(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode})
		s.set.Sockets = []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0", "unix " + filepath.Join(s.set.Dir, "u")}
		s.start()
		for round := range 3 {
			if mode == handoff.Drain { // what it asks the kernel with until then may block
				s.settled(2 * round)
			}
			pid := s.pid()
			var sockets map[string]string
			// What the first process asks the kernel with, in that mode, is soon closed.
			eventually(t, "no socket of the service blocks", func() bool {
				sockets = openFiles(t, pid)
				maps.DeleteFunc(sockets, func(_, target string) bool { return !strings.HasPrefix(target, "socket:") })
				for fd := range sockets {
					if flags, ok := flagsOf(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd)); !ok || flags&unix.O_NONBLOCK == 0 {
						return false
					}
				}
				return true
			})
			if len(sockets) < len(s.set.Sockets)+1 {
				t.Fatalf("sockets of the service: %v", sockets)
			}
			var wg sync.WaitGroup
			stop, looks := make(chan struct{}), 0
			wg.Go(func() { // ends with stop
				for {
					select {
					case <-stop:
						return
					default:
					}
					looks++
					for fd, target := range sockets {
						flags, ok := flagsOf(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd))
						// Closed after commit, its number may mean another file.
						if now, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd)); err != nil || now != target {
							continue
						}
						if ok && flags&unix.O_NONBLOCK == 0 {
							t.Errorf("descriptor %s, %s, has flags %#o, want O_NONBLOCK", fd, target, flags)
							return
						}
					}
				}
			})
			s.upgrade()
			close(stop)
			wg.Wait()
			if looks == 0 {
				t.Error("nobody has looked")
			}
			s.wait("exit")
		}
		s.stop()
	})
}

// flagsOf returns the flags of a descriptor from its file in /proc/PID/fdinfo.
func flagsOf(path string) (int64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false // closed
	}
	_, rest, _ := strings.Cut(string(b), "flags:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, false
	}
	flags, err := strconv.ParseInt(fields[0], 8, 64)
	return flags, err == nil
}

// installed is a service whose program is a file of its own, which operators do
// things to.
type installed struct {
	*service
	bin string // folder of the program
	app string
}

func install(tb testing.TB, mode handoff.Mode) *installed {
	tb.Helper()
	bin := testenv.ShortDir(tb)
	i := &installed{newService(tb, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}}), bin, filepath.Join(bin, "app")}
	copyBinary(tb, i.app)
	return i
}

// run starts the program under the name arg0, in a working directory.
func (i *installed) run(v variation, dir, arg0 string) {
	i.tb.Helper()
	cmd := i.varied(v)
	cmd.Path, cmd.Dir, cmd.Args[0] = i.app, dir, arg0
	cmd.Env = append(cmd.Env, "PATH="+i.bin+":"+os.Getenv("PATH"))
	i.startCommand(cmd)
	i.wait("owner")
}

// try triggers an upgrade and returns how it ended. Unlike service.upgrade it
// may follow at the heels of one that has failed, which is still in progress
// for a moment after it has told so.
func (s *service) try() message {
	s.tb.Helper()
	started := func() (n int) {
		for _, m := range s.heard() {
			if m.Kind == "upgrade-started" {
				n++
			}
		}
		return n
	}
	busy := func() int { return strings.Count(s.log(), "an upgrade is in progress") }
	for before := started(); started() == before; {
		was := busy()
		s.signal(syscall.SIGUSR2)
		eventually(s.tb, "an upgrade has begun, or another one is in progress", func() bool { return started() > before || busy() > was })
	}
	return s.waitFor("the end of the upgrade", func(m message) bool { return m.Kind == "committed" || m.Kind == "upgrade-failed" })
}

// mustCommit has an upgrade succeed, and its predecessor end.
func (s *service) mustCommit() {
	s.tb.Helper()
	if m := s.try(); m.Kind != "committed" {
		s.tb.Fatalf("upgrade: %s %v %s", m.Kind, m.Is, m.Err)
	}
	s.wait("exit")
}

// mustFail has an upgrade fail with an error that holds each of the words.
func (s *service) mustFail(words ...string) message {
	s.tb.Helper()
	m := s.try()
	if m.Kind != "upgrade-failed" {
		s.tb.Errorf("upgrade: %s, want a failure", m.Kind)
	}
	for _, w := range words {
		if !strings.Contains(m.Err, w) {
			s.tb.Errorf("upgrade: %v %s, want %q in it", m.Is, m.Err, w)
		}
	}
	return m
}

// runs checks that the process that serves runs the file at path.
func (i *installed) runs(path string) {
	i.tb.Helper()
	want, err := os.Stat(path)
	if err != nil {
		i.tb.Fatal(err)
	}
	got, err := os.Stat(fmt.Sprintf("/proc/%d/exe", i.pid()))
	if err != nil || !os.SameFile(got, want) {
		i.tb.Errorf("the service runs another program than %s (%v)", path, err)
	}
}

// TestExecutable upgrades a service while its program is replaced, removed or
// written to.
func TestExecutable(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		i := install(t, mode)
		i.run(variation{}, "", i.app)
		// Removed: the error says what to do, and doing it helps.
		if err := os.Remove(i.app); err != nil {
			t.Fatal(err)
		}
		i.mustFail(i.app+" is gone", "install the new version at that path")
		copyBinary(t, i.app)
		i.mustCommit()
		i.runs(i.app)
		// Replaced by rename, as installers do it.
		next := filepath.Join(i.bin, "next")
		copyBinary(t, next)
		if err := os.Rename(next, i.app); err != nil {
			t.Fatal(err)
		}
		i.mustCommit()
		i.runs(i.app)
		// Overwritten: the kernel does not let anybody.
		if f, err := os.OpenFile(i.app, os.O_WRONLY, 0); !errors.Is(err, syscall.ETXTBSY) {
			t.Errorf("open the running program to write: %v, want %v", err, syscall.ETXTBSY)
			_ = f.Close()
		}
		// Removed and written anew, and not finished yet.
		copyBinary(t, next)
		w, err := os.OpenFile(next, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := os.Rename(next, i.app); err != nil {
			t.Fatal(err)
		}
		i.mustFail("is being written", "by rename")
		// No program at all.
		if err := errors.Join(os.Remove(i.app), os.WriteFile(i.app, []byte("nothing that runs"), 0o755)); err != nil {
			t.Fatal(err)
		}
		if m := i.mustFail("exec format error"); strings.Contains(m.Err, "had not called") {
			t.Errorf("of a program that never ran the error says: %s", m.Err)
		}
		if err := os.Chmod(i.app, 0o644); err != nil {
			t.Fatal(err)
		}
		i.mustFail("permission denied")
		copyBinary(t, next)
		if err := os.Rename(next, i.app); err != nil {
			t.Fatal(err)
		}
		i.mustCommit()
		i.stop()
	})
}

// TestRelative starts a service by a relative path.
func TestRelative(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		i := install(t, mode)
		i.run(variation{}, i.bin, "./app")
		i.mustCommit()
		i.runs(i.app)
		i.stop()

		i = install(t, mode)
		i.run(variation{Chdir: "/"}, i.bin, "./app")
		if mode == handoff.Inherit {
			m := i.mustFail("the working directory has changed", "start the program by its absolute path, or use mode Takeover")
			if !slices.Contains(m.Is, "ErrUnsupported") {
				t.Errorf("upgrade: %v %s, want ErrUnsupported", m.Is, m.Err)
			}
		} else {
			i.mustCommit()
			i.runs(i.app)
			i.mustCommit()
		}
		i.stop()
	})
}

// TestPath starts a service by its name alone, and has it go elsewhere.
func TestPath(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		i := install(t, mode)
		i.run(variation{Chdir: "/"}, "", "app")
		if err := os.Remove(i.app); err != nil {
			t.Fatal(err)
		}
		if mode == handoff.Inherit {
			i.mustFail(`"app" was found in PATH when this process started, and is not now`)
		} else {
			i.mustFail(i.app + " is gone")
		}
		copyBinary(t, i.app)
		i.mustCommit()
		i.runs(i.app)
		i.stop()
	})
}

// TestWorkingDirectory removes the folder that a service was started in.
func TestWorkingDirectory(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		i := install(t, mode)
		dir := testenv.ShortDir(t)
		i.run(variation{}, dir, i.app)
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		i.mustFail("the working directory that this process was started in is not accessible")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		i.mustCommit()
		i.stop()
	})
}

// TestWrapper has a shell script start the successor, and stay.
func TestWrapper(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := writeScript(t, fmt.Sprintf("'%s' \"$@\"\nexit $?\n", exe))
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}})
	s.startCommand(s.varied(variation{Executable: script}))
	s.wait("owner")
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	l := newLoad(t, s.set.Dir, map[string]string{"0 tcp": addr})
	for range 2 {
		m := s.upgrade()
		s.wait("exit")
		if m.Report.Successor.PID != s.pid() {
			t.Errorf("the report's successor is %d, want %d", m.Report.Successor.PID, s.pid())
		}
		l.run(10)
	}
	// One that fails is gone, although the process that was started is the shell.
	s.plan(plan{At: "listening", How: "exit1"})
	s.mustFail("told to exit")
	l.run(10)
	l.stop()
	s.stop()
}

// TestPID1 upgrades a service that is PID 1 of its PID namespace: it refuses,
// says what to do, and serves on.
func TestPID1(t *testing.T) {
	testenv.Need(t, "unshare_pid")
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}})
		cmd := s.varied(variation{})
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
		s.startCommand(cmd)
		if m := s.wait("owner"); m.PID != 1 {
			t.Fatalf("the service is process %d, want 1", m.PID)
		}
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		// Not by the PID file: 1 is another process here.
		if err := cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the upgrade is refused", func() bool {
			log := s.log()
			return strings.Contains(log, "not supported: this process is PID 1") && strings.Contains(log, "docker run --init")
		})
		mustAnswer(t, addr, 1)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.wait("exit")
	})
}

// TestSignalStorm sends upgrade signals without waiting for anything, under
// load: some begin an upgrade, the others are told that one is in progress, and
// the service is there all the time.
func TestSignalStorm(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Millisecond}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		l := newLoad(t, s.set.Dir, map[string]string{"0 tcp": addr})
		for range 20 {
			// Whoever is named may have left: no process but the service's own is it.
			if pid := s.pid(); s.alive(pid) {
				_ = syscall.Kill(pid, syscall.SIGUSR2)
			}
			l.run(1)
		}
		s.wait("committed")
		l.run(50)
		eventually(t, "one process is left, and named", func() bool {
			left := slices.DeleteFunc(s.pidsHeard(), func(pid int) bool { return !s.alive(pid) })
			return len(left) == 1 && left[0] == s.pid()
		})
		l.run(20)
		l.stop()
		heard := s.heard() // an upgrade that is under way may be cut short now
		told := 0
		eventually(t, "the service has ended", func() bool {
			// One that commits just now leaves the end to its successor.
			b, _ := os.ReadFile(filepath.Join(s.set.Dir, "pid")) // gone with the last
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid != told && s.alive(pid) {
				_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
				told = pid
			}
			return !slices.ContainsFunc(s.pidsHeard(), s.alive)
		})
		committed := 0
		for _, m := range heard {
			switch m.Kind {
			case "committed":
				committed++
			case "upgrade-failed":
				t.Errorf("an upgrade has failed: %v %s", m.Is, m.Err)
			}
		}
		t.Logf("20 signals, %d upgrades", committed)
	})
}

// TestBackToBack upgrades a service again as soon as it is one process.
func TestBackToBack(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Millisecond}).start()
		for range 20 {
			s.mustCommit()
		}
		s.stop()
	})
}

// TestOwnSignals leaves SIGUSR2 to the program.
func TestOwnSignals(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}})
		s.startCommand(s.varied(variation{NoSignals: true}))
		s.wait("owner")
		for range 3 {
			s.signal(syscall.SIGUSR2)
			s.wait("usr2")
		}
		mustAnswer(t, s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"], 1)
		s.stop()
		for _, m := range s.heard() {
			if m.Kind == "upgrade-started" {
				t.Error("an upgrade was started")
			}
		}
	})
}

// goRunMain is a service, as small as it gets, for `go run`.
const goRunMain = `package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

func say(kind, err string) {
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"PID": os.Getpid(), "Kind": kind, "Err": err})
}

func main() {
	var mode handoff.Mode
	if err := mode.UnmarshalText([]byte(os.Args[1])); err != nil {
		panic(err)
	}
	up, err := handoff.New(&handoff.Config{
		Mode: mode, ControlSocket: filepath.Join(os.Args[2], "ctl", "s"), PIDFile: filepath.Join(os.Args[2], "pid"),
		Probation: time.Millisecond,
		OnEvent: func(e handoff.Event) { say(string(e.Kind), e.Reason) },
	})
	if err != nil {
		panic(err)
	}
	ln, err := up.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			_ = c.Close()
		}
	}()
	if err := up.Ready(); err != nil {
		panic(err)
	}
	<-up.Done()
	if err := up.Shutdown(context.Background()); err != nil {
		panic(err)
	}
	say("exit", "")
}
`

// TestGoRun upgrades a service that was started by go run, which removes the
// program when the first process ends.
func TestGoRun(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode})
		main := filepath.Join(s.set.Dir, "main.go")
		if err := os.WriteFile(main, []byte(goRunMain), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(goTool, "build", "-buildvcs=false", "-o", os.DevNull, main).CombinedOutput(); err != nil {
			t.Fatalf("go build, which may take a while: %v: %s", err, out)
		}
		cmd := exec.Command(goTool, "run", main, mode.String(), s.set.Dir)
		// The settings mark the processes as the service's.
		cmd.Env = append(os.Environ(), jsonEnv(t, envSettings, s.set), "GOWORK=off", "GOFLAGS=-buildvcs=false")
		s.startCommand(cmd)
		s.wait("owner")
		s.upgrade()
		s.wait("exit")
		eventually(t, "go run has ended", func() bool { return !s.alive(cmd.Process.Pid) })
		s.mustFail("`go run` removes its binary", "build with `go build`")
		s.stop()
	})
}
