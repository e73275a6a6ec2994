package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TB is the user of a namespace or link: a test or benchmark, or a program
// that calls what it gave to Cleanup at its end, last first. Fatalf must not
// return.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Namespace is a network namespace.
type Namespace struct {
	f *os.File // of nsfs; closed at the end of the test
}

// NewNamespace returns a namespace whose loopback interface is up, with IPv4 and
// IPv6. It ends with the test and what was opened in it.
func NewNamespace(t TB) *Namespace {
	t.Helper()
	n := new(Namespace)
	var err error
	onThread(func() {
		if err = os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNET)); err != nil {
			return
		}
		if n.f, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return
		}
		err = linkUp("lo")
	})
	if n.f != nil {
		t.Cleanup(func() { _ = n.f.Close() }) // was only a handle
	}
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	return n
}

// Do calls f on a thread that is in n, and returns after f. Sockets that f makes
// stay in n; so are child processes that f starts.
// Goroutines that f starts are not. f must not call t.FailNow.
func (n *Namespace) Do(f func()) {
	var err error
	onThread(func() {
		if err = n.enter(); err == nil {
			f()
		}
	})
	if err != nil {
		panic(err) // the namespace is open for as long as the test
	}
}

// DoAs is Do as another user, without any privilege: the thread has this uid and
// no capability.
func (n *Namespace) DoAs(uid int, f func()) {
	n.Do(func() {
		// The raw calls change this thread alone, which ends after f.
		id := uintptr(uid)
		for _, nr := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
			if _, _, errno := unix.RawSyscall(nr, id, id, id); errno != 0 {
				panic(fmt.Errorf("become user %d: %w", uid, errno))
			}
		}
		f()
	})
}

// Sysctl sets net.ipv4.tcp_syncookies and the like.
func (n *Namespace) Sysctl(t TB, name, value string) {
	t.Helper()
	var err error
	n.Do(func() {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		err = os.WriteFile(path, []byte(value), 0)
	})
	if err != nil {
		t.Fatalf("sysctl %s=%s: %v", name, value, err)
	}
}

func (n *Namespace) enter() error {
	rc, err := n.f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := rc.Control(func(fd uintptr) { serr = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		return err
	}
	return os.NewSyscallError("setns", serr)
}

// onThread calls f on a thread of its own, which ends after f and takes what f
// has changed on it along.
func onThread(f func()) {
	done := make(chan struct{})
	go func() { // ends with f
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if unix.Gettid() == unix.Getpid() || hasChildren() {
			// The main thread does not end, and its namespace is that of
			// /proc/self/net. A thread that has started a process takes it along
			// (PR_SET_PDEATHSIG(2const)). While it is locked here, f gets another.
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// hasChildren reports whether this thread has started a process that is there yet.
func hasChildren() bool {
	pids, err := os.ReadFile("/proc/thread-self/children") // CONFIG_PROC_CHILDREN
	return err == nil && len(pids) > 0
}

// linkUp sets an interface of the thread's namespace up.
func linkUp(name string) error {
	return ioctl(unix.AF_INET, unix.SIOCSIFFLAGS, name, func(ifr *unix.Ifreq) { ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING) })
}

// addAddr gives an interface an address.
func addAddr(name string, p netip.Prefix) error {
	if p.Addr().Is4() {
		mask := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), p.Bits()).Masked().Addr().As4()
		addr := p.Addr().As4()
		return errors.Join(
			ioctl(unix.AF_INET, unix.SIOCSIFADDR, name, func(ifr *unix.Ifreq) { _ = ifr.SetInet4Addr(addr[:]) }), // 4 bytes
			ioctl(unix.AF_INET, unix.SIOCSIFNETMASK, name, func(ifr *unix.Ifreq) { _ = ifr.SetInet4Addr(mask[:]) }))
	}
	var index uint32
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return os.NewSyscallError("ioctl(SIOCGIFINDEX)", err)
	}
	index = ifr.Uint32()
	req := struct { // struct in6_ifreq
		addr   [16]byte
		prefix uint32
		index  uint32
	}{p.Addr().As16(), uint32(p.Bits()), index}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return os.NewSyscallError("ioctl(SIOCSIFADDR)", errno)
	}
	return nil
}

// awaitAddr returns when an address of the thread's namespace can be used. Until
// a worker of the kernel has ended the duplicate address detection, also that of
// a device that needs none, an IPv6 address is tentative, and connections get
// another source (ipv6_dev_get_saddr): ::1, of which nothing comes back.
func awaitAddr(addr netip.Addr) error {
	if addr.Is4() {
		return nil
	}
	want := fmt.Sprintf("%x", addr.AsSlice())
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) { // a poll
		list, err := os.ReadFile("/proc/thread-self/net/if_inet6")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(list)) {
			// Address, index, prefix length, scope, flags, device.
			f := strings.Fields(line)
			if len(f) < 6 || f[0] != want {
				continue
			}
			flags, err := strconv.ParseUint(f[4], 16, 32)
			if err != nil {
				return fmt.Errorf("/proc/net/if_inet6: %w", err)
			}
			if flags&unix.IFA_F_TENTATIVE == 0 {
				return nil
			}
		}
	}
	return fmt.Errorf("address %v is still tentative", addr)
}

func ioctl(family int, nr uint, name string, set func(*unix.Ifreq)) error {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	set(ifr)
	return os.NewSyscallError("ioctl", unix.IoctlIfreq(fd, nr, ifr))
}
