package netlab_test

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) { testmain.Run(m) }

// A handshake over a link takes a round trip, and not less.
func TestLink(t *testing.T) {
	testenv.Need(t, "netns")
	t.Parallel()
	const delay = 10 * time.Millisecond
	l := netlab.NewLink(t, delay)
	for _, addr := range netlab.ServerAddrs {
		var ln net.Listener
		var err error
		l.Server.Do(func() { ln, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String()) })
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		l.Client.Do(func() {
			start := time.Now()
			c, err := net.DialTimeout("tcp", ln.Addr().String(), 10*time.Second)
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close() // was never used
			if d := time.Since(start); d < 2*delay {
				t.Errorf("handshake with %v took %v, want at least %v", addr, d, 2*delay)
			}
		})
	}
}

// A connection has the address of its end from the first moment on.
func TestLinkAddresses(t *testing.T) {
	testenv.Need(t, "netns")
	for range 40 { // without awaitAddr one in ten has another
		l := netlab.NewLink(t, 0)
		for i, addr := range netlab.ServerAddrs {
			l.Client.Do(func() {
				c, err := net.Dial("udp", netip.AddrPortFrom(addr, 9).String())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if got := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr(); got != netlab.ClientAddrs[i] {
					t.Errorf("connection to %v is from %v, want %v", addr, got, netlab.ClientAddrs[i])
				}
			})
		}
	}
}

// DoAs changes one thread, and that ends.
func TestDoAs(t *testing.T) {
	testenv.Need(t, "netns")
	n := netlab.NewNamespace(t)
	n.Sysctl(t, "net.ipv4.tcp_migrate_req", "1")
	n.DoAs(65534, func() {
		if _, uid, _ := unix.Getresuid(); uid != 65534 {
			t.Errorf("uid in DoAs is %d, want 65534", uid)
		}
		if b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req"); string(b) != "1\n" {
			t.Errorf("sysctl in the namespace is %q, %v, want 1", b, err)
		}
	})
	for range 20 {
		if uid := os.Getuid(); uid == 65534 {
			t.Fatal("another thread has the uid of DoAs")
		}
	}
}

// The test's own namespace stays what it is, also for the main thread.
func TestMainThread(t *testing.T) {
	testenv.Need(t, "netns")
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	n := netlab.NewNamespace(t)
	var wg sync.WaitGroup
	for range 300 { // without LockOSThread, most runs would reach the main thread
		wg.Go(func() { n.Do(func() {}) })
	}
	wg.Wait()
	if after, err := os.Readlink("/proc/self/ns/net"); err != nil || after != before {
		t.Errorf("the main thread is in %s, %v, want %s", after, err, before)
	}
}

// A process that is to end with the thread that has started it outlives what the
// namespace does, which ends threads.
func TestChildren(t *testing.T) {
	testenv.Need(t, "netns")
	n := netlab.NewNamespace(t)
	var children []*exec.Cmd
	for range 20 {
		var both sync.WaitGroup
		both.Go(func() { n.Do(func() {}) })
		cmd := exec.Command("cat")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		in, err := cmd.StdinPipe() // it ends with that
		if err != nil {
			t.Fatal(err)
		}
		both.Go(func() { // on a thread that is likely to be asked next
			if err := cmd.Start(); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		if t.Failed() {
			return
		}
		children = append(children, cmd)
		defer in.Close()
	}
	var all sync.WaitGroup
	for range 300 {
		all.Go(func() { n.Do(func() {}) })
	}
	all.Wait()
	for _, cmd := range children {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != nil || info.Signo != 0 {
			t.Errorf("process %d has ended with the thread that had started it (%v)", cmd.Process.Pid, err)
		}
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // likewise
	}
}
