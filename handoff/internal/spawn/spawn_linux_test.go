package spawn_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// patience bounds what a process of a test needs.
const patience = 10 * time.Second

// shell returns a program that runs a script.
func shell(t *testing.T, script string) *spawn.Program {
	t.Helper()
	path, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	return &spawn.Program{Path: path, Name: "successor", Args: []string{"-c", script, "name"}, Dir: t.TempDir(), Env: os.Environ()}
}

// mustStart starts a program whose conversation speaks until the test ends.
func mustStart(t *testing.T, p *spawn.Program) (*spawn.Process, *net.UnixConn) {
	t.Helper()
	c, conv, err := p.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conv.Close() })
	if err := conv.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c, conv
}

// TestStart starts a program that reports what it has: its folder, arguments and
// environment over the conversation, its last lines on standard error, and an exit
// status.
func TestStart(t *testing.T) {
	t.Setenv("BATON_HANDOFF", "7") // of another start: it must not count
	p := shell(t, `pwd >&3; echo "$BATON_HANDOFF $0 $1" >&3; seq 1 30 >&2; exit 7`)
	p.Args = append(p.Args, "argument")
	c, conv := mustStart(t, p)
	got, err := io.ReadAll(conv)
	if want := p.Dir + "\n3 name argument\n"; err != nil || string(got) != want {
		t.Errorf("it wrote %q, %v, want %q", got, err, want)
	}
	select {
	case err := <-c.Exited():
		var exit *spawn.Exit
		if !errors.As(err, &exit) || exit.Code() != 7 || exit.PID != c.PID || exit.Error() != "exit status 7" {
			t.Errorf("it ended with %v, want exit status 7 of process %d", err, c.PID)
		}
	case <-time.After(patience):
		t.Fatal("its end is not noticed")
	}
	<-c.Done()
	if c.Err() == nil {
		t.Error("Err() = nil, want its exit status")
	}
	// Its number, which is that of its group, is its own until nothing has to be killed.
	var info unix.Siginfo
	for range 1000 { // a goroutine that waits for it has time to
		runtime.Gosched()
		if err := unix.Waitid(unix.P_PID, c.PID, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil); err != nil || info.Signo == 0 {
			t.Fatalf("waitid(%d) before End: %v, signal %d, want a process that was not waited for", c.PID, err, info.Signo)
		}
	}
	tail := c.Stderr.Tail()
	if len(tail) != 20 || tail[0] != "11" || tail[19] != "30" {
		t.Errorf("its last lines are %q, want 11 to 30", tail)
	}
	c.End(0, nil)
	if err := unix.Waitid(unix.P_PID, c.PID, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("waitid(%d) after End: %v, want ECHILD", c.PID, err)
	}
}

// TestEndsGroup ends a process that has ended before what it has started: that is killed.
func TestEndsGroup(t *testing.T) {
	t.Parallel()
	c, conv := mustStart(t, shell(t, `(echo up >&3; read line <&3) & exit 0`))
	if _, err := io.ReadFull(conv, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if err := c.Err(); err != nil {
		t.Errorf("it ended with %v, want exit status 0", err)
	}
	c.End(0, nil)
	if _, err := conv.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // the last process that has the other end
		t.Errorf("what it has started: %v, want its end", err)
	}
}

// TestRelease leaves a process to itself: it runs on, and nothing here waits for it.
func TestRelease(t *testing.T) {
	t.Parallel()
	c, conv := mustStart(t, shell(t, `echo up >&3; read line <&3; echo "$line" >&3`))
	if _, err := io.ReadFull(conv, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	released := make(chan struct{})
	go func() {
		defer close(released)
		c.Release()
	}()
	select {
	case <-released:
	case <-time.After(patience):
		t.Fatal("Release waits for the process")
	}
	select {
	case <-c.Done():
		t.Errorf("it has ended: %v", c.Err())
	default:
	}
	if _, err := fmt.Fprintln(conv, "alive"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conv); err != nil || string(got) != "alive\n" {
		t.Errorf("after Release it answers %q, %v", got, err)
	}
	var status syscall.WaitStatus
	if pid, err := syscall.Wait4(c.PID, &status, 0, nil); pid != c.PID || err != nil {
		t.Errorf("wait4(%d) = %d, %v: another goroutine has waited for it", c.PID, pid, err)
	}
}

// TestEnd ends a process by itself, by the limit, and by the caller's end.
func TestEnd(t *testing.T) {
	t.Parallel()
	cut := make(chan struct{})
	close(cut)
	for _, tt := range []struct {
		name   string
		script string
		limit  time.Duration
		cut    chan struct{}
		killed bool
	}{
		{"ends", "exit 0", time.Hour, nil, false},
		{"limit", "read line <&3", time.Millisecond, nil, true},
		{"cut", "read line <&3", 0, cut, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, _ := mustStart(t, shell(t, tt.script))
			c.End(tt.limit, tt.cut)
			var exit *spawn.Exit
			killed := errors.As(c.Err(), &exit) && exit.Signal() == syscall.SIGKILL && exit.Error() == "signal: killed"
			if killed != tt.killed {
				t.Errorf("it ended with %v, killed: %t, want %t", c.Err(), killed, tt.killed)
			}
		})
	}
}

// TestAdvice starts programs that can't be started, and wants to read why.
func TestAdvice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	busy := file("busy", "", 0o755)
	w, err := os.OpenFile(busy, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, tt := range []struct {
		path, dir string
		err       error
		want      string
	}{
		{filepath.Join(dir, "none"), dir, os.ErrNotExist, "is gone: install the new version at that path"},
		{filepath.Join(dir, "go-build1", "b001", "exe", "none"), dir, os.ErrNotExist, "`go run` removes its binary"},
		{file("text", "text", 0o755), dir, syscall.ENOEXEC, "or a script without #!"},
		{file("interpreter", "#!/nowhere/sh\n", 0o755), dir, syscall.ENOENT, "the interpreter or loader that"},
		{file("mode", "#!/bin/sh\n", 0o644), dir, syscall.EACCES, "chmod +x"},
		{busy, dir, syscall.ETXTBSY, "install a new version by rename"},
		{file("ok", "#!/bin/sh\n", 0o755), filepath.Join(dir, "none"), os.ErrNotExist, "the working directory"},
	} {
		p := spawn.Program{Path: tt.path, Name: tt.path, Dir: tt.dir}
		_, _, err := p.Start()
		if !errors.Is(err, failure.Start) || !errors.Is(err, tt.err) || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("start of %s in %s: %v, want %q", tt.path, tt.dir, err, tt.want)
		}
	}
}

// TestResolve finds the program, its arguments and its folder.
func TestResolve(t *testing.T) {
	t.Parallel()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		args []string
		dir  string
		want spawn.Program
	}{
		{"/a/b", nil, "", spawn.Program{Path: "/a/b", Args: os.Args[1:], Dir: wd}},
		{"a/b", []string{}, "/c", spawn.Program{Path: filepath.Join(wd, "a/b"), Dir: "/c"}},
		{"b", []string{"c"}, "d", spawn.Program{Path: filepath.Join(wd, "b"), Args: []string{"c"}, Dir: filepath.Join(wd, "d")}},
		{"", nil, "", spawn.Program{Path: os.Args[0], Args: os.Args[1:], Dir: wd}},
	} {
		env := []string{"A=1"}
		tt.want.Name, tt.want.Env = os.Args[0], env
		got, err := spawn.Resolve(tt.path, tt.args, tt.dir, env)
		if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(spawn.Program{})); err != nil || diff != "" {
			t.Errorf("Resolve(%q, %q, %q): %v (-want +got):\n%s", tt.path, tt.args, tt.dir, err, diff)
		}
	}
}

// TestOwn finds the program of a process by the name that it was given: by a path that
// leads to its file, or has led there until a release script moved a link in it; or else
// the file itself.
func TestOwn(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Mkdir(in("bin"), 0o700), os.Symlink(exe, in("bin/app")), os.Symlink(filepath.Dir(exe), in("current")),
		os.Mkdir(in("r2"), 0o700), os.WriteFile(in("r2/app"), nil, 0o600), os.Symlink("r2", in("moved")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", in("bin")+":"+os.Getenv("PATH"))
	for _, tt := range []struct{ name, want string }{
		{exe, exe},
		{in("current/" + filepath.Base(exe)), in("current/" + filepath.Base(exe))},
		{"current/" + filepath.Base(exe), in("current/" + filepath.Base(exe))},
		{"app", in("bin/app")},
		{in("moved/app"), in("moved/app")},
		{"sleep", exe},
		{"no-such-program-in-path", exe},
		{in("r2/app"), exe},
		{in("none/app"), exe},
	} {
		if got := spawn.Own(tt.name, dir); got != tt.want {
			t.Errorf("of %s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestStderrIsTerminal starts a program below a terminal: the program finds one at its
// standard error, of the same size, and what it writes arrives as it is.
func TestStderrIsTerminal(t *testing.T) {
	t.Parallel()
	r, out, err := spawn.NewTerminal(&unix.Winsize{Row: 10, Col: 33})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer out.Close()
	c, err := spawn.NewCapture(out)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "stty size <&2 >&2; test -t 2 && echo last >&2")
	cmd.Stderr = c.Writer()
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	if got := c.Tail(); !slices.Equal(got, []string{"10 33", "last"}) {
		t.Errorf("Tail() = %q", got)
	}
	c.Close()
	const want = "10 33\nlast\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); string(got) != want {
		t.Errorf("the terminal got %q, %v", got, err)
	}
}

// journalMain is below systemd's journal, whose place a pipe takes: it starts a program,
// and then has a pipe at descriptor 2 itself.
func journalMain([]string) {
	const script = `test "$JOURNAL_STREAM" = "$(stat -Lc %d:%i /proc/self/fd/2)"`
	say := func(what string, err error) {
		if err != nil {
			fmt.Println(what, err)
		}
	}
	journal := func() error {
		cmd := exec.Command("sh", "-c", script)
		cmd.Stderr = os.Stderr
		return cmd.Run()
	}
	p := spawn.Program{Path: "/bin/sh", Name: "sh", Args: []string{"-c", script}, Dir: "/", Env: os.Environ()}
	c, conv, err := p.Start()
	if err != nil {
		say("start", err)
		return
	}
	say("successor", <-c.Exited())
	c.Release()
	_ = conv.Close()
	d, err := spawn.NewRedirect([]int{3, 4, 5})
	say("redirect", err)
	say("with the pipe", journal())
	d.Restore()
	say("restored", journal())
	d.Close()
}

// TestJournalStream has systemd's variable lead to descriptor 2, whatever is there: a
// program writes for the journal in each phase of its life.
func TestJournalStream(t *testing.T) {
	t.Parallel()
	out, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	fi, err := out.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	cmd := testmain.Command(t, "journal")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{out, r, w}, out
	cmd.Env = append(cmd.Env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino))
	got, err := cmd.Output()
	_, _ = r.Close(), w.Close()
	if err != nil || len(got) > 0 {
		t.Errorf("where the variable does not lead to descriptor 2: %s (%v)", got, err)
	}
}

// TestCaptureWriterStaysOpen ends a capture while a child of the successor has the pipe
// open still: what was written until then is copied, and Close does not wait for more.
func TestCaptureWriterStaysOpen(t *testing.T) {
	t.Parallel()
	out, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c, err := spawn.NewCapture(out)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := fdx.DupFD(c.Descriptors()[2])
	if err != nil {
		t.Fatal(err)
	}
	defer fdx.Close(fd)
	if _, err := c.Writer().WriteString("one\n\ntwo"); err != nil {
		t.Fatal(err)
	}
	if got := c.Tail(); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("Tail() = %q", got)
	}
	c.Close()
	if got, err := os.ReadFile(out.Name()); err != nil || string(got) != "one\n\ntwo" {
		t.Errorf("copied %q, %v", got, err)
	}
	if got := c.Descriptors(); got != nil {
		t.Errorf("Descriptors() = %d after Close", got)
	}
}
