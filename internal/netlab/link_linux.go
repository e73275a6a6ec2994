package netlab

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses of the two ends of a [Link].
var (
	ClientAddrs = []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")}
	ServerAddrs = []netip.Addr{netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")}
)

// Link is two namespaces that are joined by a link which takes Delay each way.
// It loses no packet and keeps their order.
type Link struct {
	Client, Server *Namespace
	Delay          time.Duration
}

// NewLink returns a link whose ends have the addresses [ClientAddrs] and
// [ServerAddrs]. It ends with the test.
func NewLink(t TB, delay time.Duration) *Link {
	t.Helper()
	l := &Link{Client: NewNamespace(t), Server: NewNamespace(t), Delay: delay}
	client := l.Client.tun(t, ClientAddrs)
	server := l.Server.tun(t, ServerAddrs)
	var wg sync.WaitGroup
	wg.Go(func() { l.carry(client, server) }) // these end when the files are closed
	wg.Go(func() { l.carry(server, client) })
	t.Cleanup(func() {
		_ = client.Close() // a device that goes with its file
		_ = server.Close()
		wg.Wait()
	})
	return l
}

type packet struct {
	data []byte
	due  time.Time
}

// carry moves packets from one device to the other.
func (l *Link) carry(from, to *os.File) {
	queue := make(chan packet, 1<<14)
	var wg sync.WaitGroup
	wg.Go(func() { // ends with queue
		for p := range queue {
			time.Sleep(time.Until(p.due)) // this is the delay of the link
			_, _ = to.Write(p.data)       // a device that is down drops it
		}
	})
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			break
		}
		queue <- packet{data: append([]byte(nil), buf[:n]...), due: time.Now().Add(l.Delay)}
	}
	close(queue)
	wg.Wait()
}

// tun returns a TUN device in n, up and with addresses.
func (n *Namespace) tun(t TB, addrs []netip.Addr) *os.File {
	t.Helper()
	const name = "lab0"
	var f *os.File
	var err error
	n.Do(func() {
		var fd int
		fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			err = os.NewSyscallError("open /dev/net/tun", err)
			return
		}
		err = func() error {
			ifr, err := unix.NewIfreq(name)
			if err != nil {
				return err
			}
			ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
				return os.NewSyscallError("ioctl(TUNSETIFF)", err)
			}
			errs := []error{linkUp(name)}
			for _, a := range addrs {
				bits := 24
				if a.Is6() {
					bits = 64
				}
				errs = append(errs, addAddr(name, netip.PrefixFrom(a, bits)), awaitAddr(a))
			}
			return errors.Join(errs...)
		}()
		if err != nil {
			_ = unix.Close(fd) // the other error says more
			return
		}
		// After TUNSETIFF, or the poller takes it for a file that can't wait.
		f = os.NewFile(uintptr(fd), name)
	})
	if err != nil {
		t.Fatalf("make a TUN device: %v", err)
	}
	return f
}
