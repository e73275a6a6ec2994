package machine_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/integration/internal/machine"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){
		"init":  func(args []string) { fail(machine.Init(args)) },
		"owner": func([]string) { fail(ownerMain()) },
	})
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command(tb testing.TB) machine.Command {
	return func(args ...string) *exec.Cmd { return testmain.Command(tb, "init", args...) }
}

// boot boots a machine that ends with the test.
func boot(t *testing.T, c machine.Config) *machine.Machine {
	t.Helper()
	testenv.Need(t, "systemd")
	c.Command = command(t)
	m, err := machine.Boot(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// run runs a line of shell in the machine.
func run(t *testing.T, m *machine.Machine, line string) string {
	t.Helper()
	out, err := m.Output(t.Context(), "sh", "-c", line)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// cgroups returns the folders that machines of a process have made.
func cgroups(pid int) []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/baton-systemd-%d-*", "/sys/fs/cgroup/unified/baton-systemd-%d-*"} {
		some, _ := filepath.Glob(fmt.Sprintf(pattern, pid)) // the patterns are good
		found = append(found, some...)
	}
	return found
}

// TestBoot boots this system's systemd, runs units in it, and looks at what it
// can't reach.
func TestBoot(t *testing.T) {
	m := boot(t, machine.Config{})
	if comm := run(t, m, "cat /proc/1/comm"); comm != "systemd" || m.Version < 200 {
		t.Errorf("PID 1 is %q, version %d", comm, m.Version)
	}
	if err := m.WriteFile("/etc/systemd/system/hello.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=sh -c 'echo hello; touch /run/hello'\n"); err != nil {
		t.Fatal(err)
	}
	run(t, m, "systemctl daemon-reload && systemctl start hello.service && test -e /run/hello")
	if log := run(t, m, "journalctl --sync; journalctl -u hello.service -o cat"); !strings.Contains(log, "hello\n") {
		t.Errorf("the journal has %q", log)
	}
	if err := m.Install("/bin/true", "nothing"); err != nil {
		t.Fatal(err)
	}
	run(t, m, "nothing")
	// What it can't reach is asked for, not tried out.
	for _, path := range []string{"/usr", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/sys", "/"} {
		run(t, m, "test ! -w "+path)
	}
	if links := run(t, m, "ls /sys/class/net"); links != "lo" {
		t.Errorf("network interfaces %q, want lo alone", links)
	}
	const reach = 1<<unix.CAP_SYS_TIME | 1<<unix.CAP_SYS_MODULE | 1<<unix.CAP_SYS_BOOT | 1<<unix.CAP_SYS_RAWIO | 1<<unix.CAP_WAKE_ALARM |
		1<<unix.CAP_MAC_ADMIN | 1<<unix.CAP_MAC_OVERRIDE | 1<<unix.CAP_SYSLOG | 1<<unix.CAP_AUDIT_CONTROL
	for _, who := range []string{"1", "self"} {
		for line := range strings.Lines(run(t, m, "grep -E '^Cap(Prm|Eff|Bnd|Inh|Amb)' /proc/"+who+"/status")) {
			set, err := strconv.ParseUint(strings.Fields(line)[1], 16, 64)
			if err != nil || set&reach != 0 {
				t.Errorf("process %s has capabilities beyond its namespaces: %s, %v", who, line, err)
			}
		}
	}
	for _, path := range []string{"/etc/systemd/system/hello.service", "/run/hello", "/usr/local/bin/nothing"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is on this system too", path)
		}
	}
}

// TestDial reaches what listens in the machine, and nothing else does.
func TestDial(t *testing.T) {
	testenv.Long(t, "TestBoot")
	m := boot(t, machine.Config{})
	if err := m.WriteFile("/etc/systemd/system/echo.socket", "[Socket]\nAccept=yes\nListenStream=127.0.0.1:7\nListenStream=@echo\nListenStream=/run/echo\n"); err != nil {
		t.Fatal(err)
	}
	if err := m.WriteFile("/etc/systemd/system/echo@.service", "[Service]\nStandardInput=socket\nExecStart=cat\n"); err != nil {
		t.Fatal(err)
	}
	run(t, m, "systemctl daemon-reload && systemctl start echo.socket")
	for network, address := range map[string]string{"tcp": "127.0.0.1:7", "unix": "@echo", "unixpath": "/run/echo"} {
		c, err := m.Dial(t.Context(), strings.TrimSuffix(network, "path"), address)
		if err != nil {
			t.Error(err)
			continue
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello\n")); err != nil {
			t.Error(err)
		}
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "hello\n" {
			t.Errorf("%s %s: %q, %v", network, address, line, err)
		}
	}
	if c, err := net.Dial("tcp", "127.0.0.1:7"); err == nil {
		_ = c.Close()
		t.Error("it is reached from outside")
	}
}

// TestClose leaves nothing.
func TestClose(t *testing.T) {
	testenv.Long(t, "TestBoot")
	testenv.Need(t, "systemd")
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	m, err := machine.Boot(t.Context(), machine.Config{Command: command(t)})
	if err != nil {
		t.Fatal(err)
	}
	if len(cgroups(os.Getpid())) == 0 {
		t.Error("there is no cgroup: this test proves nothing")
	}
	root := m.Path("/")
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if left := cgroups(os.Getpid()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(root); err == nil {
		t.Errorf("%s is still there", root)
	}
}

// ownerMain boots a machine and waits to be killed.
func ownerMain() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = machine.Boot(context.Background(), machine.Config{Command: func(args ...string) *exec.Cmd {
		cmd := exec.Command(self, args...)
		cmd.Env = append(os.Environ(), "BATON_TEST_HELPER=init")
		return cmd
	}})
	if err != nil {
		return err
	}
	fmt.Println("booted")
	select {}
}

// TestOwnerKilled kills the process that has booted a machine: the machine ends,
// and the next one takes away what is left.
func TestOwnerKilled(t *testing.T) {
	testenv.Long(t, "TestBoot")
	testenv.Need(t, "systemd")
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	owner := testmain.Command(t, "owner")
	owner.Stderr = os.Stderr
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "booted\n" {
		_ = owner.Process.Kill()
		t.Fatalf("%q, %v, %v", line, err, owner.Wait())
	}
	pid := owner.Process.Pid
	if len(cgroups(pid)) == 0 {
		t.Error("there is no cgroup: this test proves nothing")
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // killed
	// A machine that is still ending can't be taken away: once more then.
	for end := time.Now().Add(time.Minute); len(cgroups(pid)) > 0; {
		if time.Now().After(end) {
			t.Fatalf("left: %v", cgroups(pid))
		}
		m, err := machine.Boot(t.Context(), machine.Config{Command: command(t)})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestBootFails says why.
func TestBootFails(t *testing.T) {
	testenv.Long(t, "TestBoot")
	testenv.Need(t, "systemd")
	_, err := machine.Boot(t.Context(), machine.Config{Command: command(t), Root: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "mount") {
		t.Errorf("Boot() of an empty folder = %v, want an error that says what could not be mounted", err)
	}
	if left := cgroups(os.Getpid()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
