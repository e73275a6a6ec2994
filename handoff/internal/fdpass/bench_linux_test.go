package fdpass_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// BenchmarkTransfer moves n descriptors through a Conn and, in turn, through a
// bare loop of sendmsg and recvmsg with 253 descriptors a message. Neither
// includes closing what arrived. The metric "ratio" is the time of the first
// over the time of the second.
func BenchmarkTransfer(b *testing.B) {
	for _, n := range []int{1, 253, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			if err := fdx.RaiseNoFile(n + 100); err != nil {
				b.Skip(err)
			}
			src, dst := conns(b)
			bare, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer fdx.Close(bare[:]...)
			w := newWitness(b)
			all := w.times(n)
			got := make([]int, 0, n)
			payload := make([]byte, 80*fdpass.MaxFDs)
			oob := make([]byte, unix.CmsgSpace(4*fdpass.MaxFDs))
			release := func() {
				if len(got) != n {
					b.Fatalf("%d descriptors arrived, want %d", len(got), n)
				}
				if err := fdx.Close(got...); err != nil {
					b.Fatal(err)
				}
				got = got[:0]
			}
			var framed, plain time.Duration
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				for part := range slices.Chunk(all, fdpass.MaxFDs) {
					if err := src.Send(1, payload[:80*len(part)], part); err != nil {
						b.Fatal(err)
					}
					f, err := dst.Recv()
					if err != nil {
						b.Fatal(err)
					}
					got = append(got, f.FDs...)
				}
				framed += time.Since(start)
				release()

				start = time.Now()
				for part := range slices.Chunk(all, fdpass.MaxFDs) {
					if err := unix.Sendmsg(bare[0], payload[:1], unix.UnixRights(part...), nil, 0); err != nil {
						b.Fatal(err)
					}
					_, oobn, _, _, err := unix.Recvmsg(bare[1], payload[:1], oob, unix.MSG_CMSG_CLOEXEC)
					if err != nil {
						b.Fatal(err)
					}
					messages, err := unix.ParseSocketControlMessage(oob[:oobn])
					if err != nil {
						b.Fatal(err)
					}
					fds, err := unix.ParseUnixRights(&messages[0])
					if err != nil {
						b.Fatal(err)
					}
					got = append(got, fds...)
				}
				plain += time.Since(start)
				release()
			}
			b.ReportMetric(float64(framed)/float64(plain), "ratio")
			b.ReportMetric(float64(framed.Nanoseconds())/float64(b.N), "framed-ns")
			b.ReportMetric(float64(plain.Nanoseconds())/float64(b.N), "bare-ns")
			b.ReportMetric(0, "ns/op")
		})
	}
}
