package fdpass_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// helperEnv names the helper that a re-executed test binary is to run.
const helperEnv = "BATON_FDPASS_TEST_HELPER"

func TestMain(m *testing.M) {
	name := os.Getenv(helperEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	helper := map[string]func() error{
		"short-limit":    shortLimit,
		"many-in-flight": manyInFlight,
	}[name]
	if helper == nil {
		fmt.Fprintf(os.Stderr, "no helper %q\n", name)
		os.Exit(2)
	}
	if err := helper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runHelper runs a helper in a process of its own, whose limits and identity it
// may change.
func runHelper(t *testing.T, name string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
}

// socketpair returns two connected stream sockets.
func socketpair() (a, b *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ca, err := fdx.Conn(fds[0], "a")
	if err != nil {
		_ = fdx.Close(fds[1])
		return nil, nil, err
	}
	cb, err := fdx.Conn(fds[1], "b")
	if err != nil {
		ca.Close()
		return nil, nil, err
	}
	return ca.(*net.UnixConn), cb.(*net.UnixConn), nil
}

// pair returns two connected ends: a hostile one, raw, and one of this package.
func pair(t testing.TB) (raw *net.UnixConn, conn *fdpass.Conn) {
	t.Helper()
	a, b, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	conn = fdpass.New(b)
	t.Cleanup(func() {
		a.Close()
		conn.Close()
	})
	return a, conn
}

// conns returns two connected ends of this package.
func conns(t testing.TB) (a, b *fdpass.Conn) {
	t.Helper()
	raw, b := pair(t)
	a = fdpass.New(raw)
	return a, b
}
