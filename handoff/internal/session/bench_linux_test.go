package session_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// BenchmarkTransfer takes a successor from Hello to Verified with n sockets,
// each checked, and in turn passes the same descriptors by a bare loop: sendmsg
// and recvmsg of 253 descriptors, each message acknowledged by one byte, between
// two threads as well; once as it is and once with the same checks. None of them
// includes closing what arrived.
//
// The metric "ratio" is the shortest time of the first over the shortest of the
// bare loop, "checked-ratio" the same with the loop that checks: the shortest is
// what other load of the machine disturbs least. A check is three system calls,
// each of which takes longer than passing a descriptor ("syscall-ns" is one), so the
// conversation uses all processors for them, which the loop does not. "limit-ns/fd" is
// the bare loop and three system calls a socket on all processors, and nothing else.
// B/fd is what the conversation allocates on both
// sides together.
func BenchmarkTransfer(b *testing.B) {
	for _, n := range []int{1, 253, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			distinct := min(n, 4000) // the limit of a process is 20,000 in many places
			if err := fdx.RaiseNoFile(n + distinct + 200); err != nil {
				b.Skip(err)
			}
			items, fds := make([]session.Item, n), make([]int, n)
			for i := range n {
				if i < distinct {
					items[i] = tcpListener(b)
				} else {
					items[i] = items[i-distinct]
				}
				fds[i] = items[i].FD
			}
			whole, plain, checked, call := time.Hour, time.Hour, time.Hour, time.Hour
			var bytes uint64
			var before, after runtime.MemStats
			for b.Loop() {
				runtime.ReadMemStats(&before)
				whole = min(whole, conversation(b, items))
				runtime.ReadMemStats(&after)
				bytes += after.TotalAlloc - before.TotalAlloc
				plain = min(plain, bareLoop(b, fds, nil))
				checked = min(checked, bareLoop(b, fds, items))
				call = min(call, systemCall(b, fds[0]))
			}
			least := plain + 3*call*time.Duration(n)/time.Duration(runtime.GOMAXPROCS(0))
			b.ReportMetric(float64(least.Nanoseconds())/float64(n), "limit-ns/fd")
			b.ReportMetric(float64(call), "syscall-ns")
			b.ReportMetric(float64(whole)/float64(plain), "ratio")
			b.ReportMetric(float64(whole)/float64(checked), "checked-ratio")
			b.ReportMetric(float64(whole.Nanoseconds())/float64(n), "session-ns/fd")
			b.ReportMetric(float64(plain.Nanoseconds())/float64(n), "bare-ns/fd")
			b.ReportMetric(float64(checked.Nanoseconds())/float64(n), "checked-ns/fd")
			b.ReportMetric(float64(bytes)/float64(b.N)/float64(n), "B/fd")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// systemCall returns the time of a getsockopt(2), one of many.
func systemCall(b *testing.B, fd int) time.Duration {
	const calls = 1000
	start := time.Now()
	for range calls {
		if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
			b.Fatal(os.NewSyscallError("getsockopt", err))
		}
	}
	return time.Since(start) / calls
}

// conversation returns the time from Hello to Verified.
func conversation(b *testing.B, items []session.Item) time.Duration {
	o, n := newOldSide(b, session.Timeouts{Hang: 30 * time.Second}), newNewSide(b, 30*time.Second)
	o.items = items
	n.joiner.Check = session.Verify
	n.joiner.Expect = fdx.RaiseNoFile
	warming := make(chan struct{})
	o.Entered = func(ph session.Phase) {
		if ph == session.PhaseWarming {
			close(warming)
		}
	}
	near, far := wirePair(b, 30*time.Second)
	o.greet(near)
	start := time.Now()
	if err := n.join(far); err != nil {
		b.Fatal(err)
	}
	<-warming
	took := time.Since(start)
	if len(n.got.Sockets) != len(items) {
		b.Fatalf("%d sockets arrived, want %d", len(n.got.Sockets), len(items))
	}
	n.start()
	n.s.Abort("done")
	n.end()
	o.end()
	n.got.Close()
	return took
}

// bareLoop returns the time in which fds pass over a socketpair, and are checked
// on arrival if items isn't nil.
func bareLoop(b *testing.B, fds []int, items []session.Item) time.Duration {
	const batch = 253
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(os.NewSyscallError("socketpair", err))
	}
	got := make([]int, 0, len(fds))
	received := make(chan error, 1)
	start := time.Now()
	go func() { // ends with the last descriptor
		received <- func() error {
			payload, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*batch))
			for len(got) < len(fds) {
				_, oobn, _, _, err := unix.Recvmsg(pair[1], payload, oob, unix.MSG_CMSG_CLOEXEC)
				if err != nil {
					return err
				}
				messages, err := unix.ParseSocketControlMessage(oob[:oobn])
				if err != nil {
					return err
				}
				some, err := unix.ParseUnixRights(&messages[0])
				if err != nil {
					return err
				}
				if items != nil {
					for i, fd := range some {
						if err := session.Verify(items[len(got)+i].Socket, fd); err != nil {
							return err
						}
					}
				}
				got = append(got, some...)
				if _, err := unix.Write(pair[1], payload); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	ack := make([]byte, 1)
	for part := range slices.Chunk(fds, batch) {
		if err := unix.Sendmsg(pair[0], ack, unix.UnixRights(part...), nil, 0); err != nil {
			b.Fatal(os.NewSyscallError("sendmsg", err))
		}
		if _, err := unix.Read(pair[0], ack); err != nil {
			b.Fatal(os.NewSyscallError("read", err))
		}
	}
	if err := <-received; err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	closeAll(b, got)
	closeAll(b, pair[:])
	return took
}
