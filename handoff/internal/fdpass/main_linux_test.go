package fdpass_test

import (
	"fmt"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){
		"short-limit":    helper(shortLimit),
		"many-in-flight": helper(manyInFlight),
	})
}

func helper(f func() error) func([]string) {
	return func([]string) {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// runHelper runs a helper in a process of its own, whose limits and identity it
// may change.
func runHelper(t *testing.T, name string) {
	t.Helper()
	if out, err := testmain.Command(t, name).CombinedOutput(); err != nil {
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
