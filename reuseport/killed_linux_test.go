package reuseport_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// helperMove moves away from the socket that it has inherited, in which something
// waits that is not read, until it is killed: it probes over and over.
func helperMove(args []string) {
	ctx := context.Background()
	f := os.NewFile(3, "inherited")
	conns := make([]syscall.Conn, 2)
	var err error
	if args[0] == "udp4" {
		var old net.PacketConn
		if old, err = net.FilePacketConn(f); err == nil {
			conns[0] = old.(*net.UDPConn)
			conns[1], err = reuseport.ListenPacket(ctx, args[0], args[1], nil)
		}
	} else {
		var old net.Listener
		if old, err = net.FileListener(f); err == nil {
			conns[0] = old.(*net.TCPListener)
			var own *reuseport.Listener
			own, err = reuseport.Listen(ctx, args[0], args[1], nil)
			conns[1] = own
			go serveEcho(own)
		}
	}
	if err != nil {
		panic(err)
	}
	old := reuseport.Leaving{Conn: conns[0], Close: func() error { panic("it is not quiet") }}
	fmt.Println("moving")
	_, err = reuseport.MoveInTurns(ctx, conns[1:], []reuseport.Leaving{old}, 10*time.Millisecond)
	panic(fmt.Sprint("the move has ended: ", err))
}

// A process that is killed while it probes leaves a least TTL on the listeners, and
// a filter on the UDP sockets, that others have as well. These steer and drain
// all the same, and take them off.
func TestKilledWhileItProbes(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp4", "udp4"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			var shared syscall.Conn
			var address string
			var add func() (drain func(context.Context) (reuseport.Report, error))
			var marked func() bool
			if network == "tcp4" {
				g, err := reuseport.ListenGroup(ctx, network, "127.66.41.1:0", &reuseport.Config{Members: 1})
				if err != nil {
					t.Fatal(err)
				}
				defer g.Close()
				l := g.Members()[0]
				shared, address = l, l.Addr().String()
				dial(t, network, address, 1) // waits in its queue
				marked = func() bool { return sockopt(t, l, unix.IPPROTO_IP, unix.IP_MINTTL) != 0 }
				add = func() func(context.Context) (reuseport.Report, error) {
					l, err := g.Add(ctx)
					if err != nil {
						t.Fatal(err)
					}
					go serveEcho(l)
					return l.Drain
				}
			} else {
				g, err := reuseport.ListenPacketGroup(ctx, network, "127.66.41.1:0", &reuseport.Config{Members: 1})
				if err != nil {
					t.Fatal(err)
				}
				defer g.Close()
				p := g.Members()[0]
				shared, address = p, p.LocalAddr().String()
				client, err := net.Dial(network, address)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				if _, err := client.Write([]byte("x")); err != nil { // waits likewise
					t.Fatal(err)
				}
				marked = func() bool { return filterLen(t, p) > 0 }
				add = func() func(context.Context) (reuseport.Report, error) {
					p, err := g.Add(ctx)
					if err != nil {
						t.Fatal(err)
					}
					go newCollector().serve(p)
					return p.Drain
				}
			}
			for !marked() {
				if ctx.Err() != nil {
					t.Fatal("no process was killed in the moment")
				}
				killWhen(t, network, address, shared, marked)
			}
			// One of a group that knows nothing of the marked socket leaves first.
			var other func(context.Context) (reuseport.Report, error)
			if network == "tcp4" {
				g := group(t, network, address, 2)
				other = g.Members()[0].Drain
			} else {
				g := packetGroup(t, newCollector(), network, address, 2)
				other = g.Members()[0].Drain
			}
			if r, err := other(ctx); err != nil || r.Strategy != reuseport.StrategySteer || r.LossPossible {
				t.Errorf("Drain in another group: %+v, %v, want steer", r, err)
			}
			if r, err := add()(ctx); err != nil || r.Strategy != reuseport.StrategySteer || r.LossPossible {
				t.Errorf("Drain: %+v, %v, want steer", r, err)
			}
			if marked() {
				t.Error("the marks are there still")
			}
		})
	}
}

// killWhen starts a process that moves away from shared, and kills it when ready
// says so.
func killWhen(t *testing.T, network, address string, shared syscall.Conn, ready func() bool) {
	t.Helper()
	fd, err := fdx.Dup(shared)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "shared")
	defer f.Close()
	cmd := testmain.Command(t, "move", network, address)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "moving\n" {
		t.Errorf("the process says %q, %v", line, err)
	}
	for end := time.Now().Add(5 * time.Second); !ready() && time.Now().Before(end); {
	}
	_ = cmd.Process.Kill()          // has not ended by itself
	_, _ = io.Copy(io.Discard, out) // until it is dead
	_ = cmd.Wait()                  // was killed
}

func filterLen(t *testing.T, c syscall.Conn) (n uint32) {
	t.Helper()
	err := onFD(c, func(fd int) error {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER, 0, uintptr(unsafe.Pointer(&n)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
