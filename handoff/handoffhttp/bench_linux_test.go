package handoffhttp_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// A kind of server is a plain http.Server, or one with a Server around it.
type kind string

const (
	plain    kind = "plain"
	alone    kind = "alone" // without an Upgrader
	upgraded kind = "upgraded"
)

// startServer starts a server in this process.
func startServer(tb testing.TB, k kind, h http.Handler) (addr string) {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	serve, stop := srv.Serve, func() { _ = srv.Close() }
	if k != plain {
		up := newFakeUpgrader()
		s := handoffhttp.NewTestServer(up, srv, nil)
		if k == alone {
			s = handoffhttp.New(srv, nil)
		}
		serve, stop = s.Serve, func() {
			close(up.done)
			_ = ln.Close()
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			s.Linger(ctx)
		}
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = serve(ln)
	}()
	tb.Cleanup(func() {
		stop()
		<-served
	})
	return ln.Addr().String()
}

var small = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, "ok")
})

// asker sends one request after the other, without an allocation.
type asker struct {
	nc  net.Conn
	in  *bufio.Reader
	req []byte
}

func newAsker(tb testing.TB, addr string) *asker {
	tb.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = nc.Close() })
	return &asker{nc: nc, in: bufio.NewReader(nc), req: []byte(post)}
}

func (a *asker) ask() error {
	if _, err := a.nc.Write(a.req); err != nil {
		return err
	}
	size := 0
	for {
		line, err := a.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			_, err := a.in.Discard(size)
			return err
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if size, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return err
			}
		}
	}
}

// BenchmarkRequests compares requests on keep-alive connections with those of a
// plain http.Server, by rounds in turn. The metric "ratio" is our requests per
// second to the plain one's: the median over pairs of rounds.
func BenchmarkRequests(b *testing.B) { benchmarkRequests(b, upgraded) }

// BenchmarkRequestsAlone is the same for a Server without an Upgrader.
func BenchmarkRequestsAlone(b *testing.B) { benchmarkRequests(b, alone) }

func benchmarkRequests(b *testing.B, ours kind) {
	const clients, each = 32, 10
	var askers [2][]*asker
	for k := range askers {
		addr := startServer(b, []kind{plain, ours}[k], small)
		for range clients {
			askers[k] = append(askers[k], newAsker(b, addr))
		}
	}
	paired(b, 600, clients*each, func(k int) {
		var wg sync.WaitGroup
		for _, a := range askers[k] {
			wg.Go(func() {
				for range each {
					if err := a.ask(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// BenchmarkConns compares connections with one request each, likewise.
func BenchmarkConns(b *testing.B) {
	const each = 20
	addrs := []string{startServer(b, plain, small), startServer(b, upgraded, small)}
	paired(b, 600, each, func(k int) {
		for range each {
			a := &asker{req: []byte(post)}
			var err error
			if a.nc, err = net.Dial("tcp", addrs[k]); err != nil {
				b.Fatal(err)
			}
			a.in = bufio.NewReader(a.nc)
			if err := a.ask(); err != nil {
				b.Fatal(err)
			}
			_ = a.nc.Close()
		}
	})
}

// paired runs rounds of n operations, of the plain server's (0) and of ours (1),
// each pair in the order that the one before had not.
func paired(b *testing.B, pairs, n int, round func(k int)) {
	b.Helper()
	var took, cpu [2][]float64
	var ratios []float64
	for b.Loop() {
		for i := range pairs {
			var pair [2]float64
			for j := range pair {
				k := (i + j) % 2
				began, used := time.Now(), cpuTime(b)
				round(k)
				pair[k] = float64(time.Since(began).Nanoseconds())
				took[k] = append(took[k], pair[k]/float64(n))
				cpu[k] = append(cpu[k], float64(cpuTime(b)-used)/float64(n))
			}
			ratios = append(ratios, pair[0]/pair[1])
		}
	}
	b.ReportMetric(median(ratios), "ratio")
	for k, name := range []string{"plain", "baton"} {
		b.ReportMetric(median(took[k]), name+"-ns")
		b.ReportMetric(median(cpu[k]), name+"-cpu-ns")
	}
	b.ReportMetric(0, "ns/op")
}

func median(vs []float64) float64 {
	slices.Sort(vs)
	return vs[len(vs)/2]
}

// cpuTime returns the time that this process has computed, in nanoseconds.
func cpuTime(tb testing.TB) int64 {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		tb.Fatal(err)
	}
	return ru.Utime.Nano() + ru.Stime.Nano()
}

// TestAllocations shows that a request costs no allocation more than on a plain
// http.Server, and a connection at most two. It counts those of the process, so
// it doesn't run beside others.
func TestAllocations(t *testing.T) {
	if underRace {
		t.Skip("the race detector has sync.Pool drop things at random")
	}
	requests := func(k kind) float64 {
		a := newAsker(t, startServer(t, k, small))
		return allocations(2000, func() {
			if err := a.ask(); err != nil {
				t.Fatal(err)
			}
		})
	}
	conns := func(k kind) float64 {
		addr := startServer(t, k, small)
		return allocations(500, func() {
			a := newAsker(t, addr)
			if err := a.ask(); err != nil {
				t.Fatal(err)
			}
			_ = a.nc.Close()
		})
	}
	// The least of a few rounds: what the process does beside allocates as well.
	least := func(f func(kind) float64, k kind) float64 { return min(f(k), f(k), f(k)) }
	request, conn := least(requests, plain), least(conns, plain)
	for _, k := range []kind{upgraded, alone} {
		// Pools that the collector empties make the numbers vary a little.
		if got := least(requests, k); got > request+0.5 {
			t.Errorf("%s: %v allocations for a request, want %v as without a Server", k, got, request)
		}
		if got := least(conns, k); got > conn+2.5 {
			t.Errorf("%s: %v allocations for a connection, want at most 2 more than %v", k, got, conn)
		} else {
			t.Logf("%s: %v allocations for a connection, %v without a Server", k, got, conn)
		}
	}
}

// allocations returns how many a call of f makes. testing.AllocsPerRun leaves out
// the fraction, so that 15.999 and 16.001 are one apart.
func allocations(runs int, f func()) float64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(runs)
}

// countingFile is a file that package net can send by sendfile, and that counts
// what is read from it otherwise.
type countingFile struct {
	f    *os.File
	read atomic.Int64
}

func (c *countingFile) Read(p []byte) (int, error) {
	n, err := c.f.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func (c *countingFile) Seek(offset int64, whence int) (int64, error) {
	return c.f.Seek(offset, whence)
}
func (c *countingFile) SyscallConn() (syscall.RawConn, error) { return c.f.SyscallConn() }

// TestSendfile shows that a large file goes from kernel to kernel: the program
// reads no more of it than net/http wants for the content type. The control is
// the same with a ResponseWriter that has no ReadFrom.
func TestSendfile(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte("0123456789abcdef"), size/16), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func(k kind, hide bool) int64 {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		c := &countingFile{f: f}
		addr := startServer(t, k, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fi, _ := f.Stat()
			if hide {
				w = struct{ http.ResponseWriter }{w}
			}
			http.ServeContent(w, r, "file", fi.ModTime(), c)
		}))
		res, err := http.Get("http://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		defer http.DefaultClient.CloseIdleConnections()
		if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
			t.Errorf("%d bytes, %v, want %d", n, err, size)
		}
		return c.read.Load()
	}
	if n := serve(plain, true); n < size {
		t.Fatalf("without ReadFrom %d bytes are read: the counter doesn't count", n)
	}
	want, got := serve(plain, false), serve(upgraded, false)
	if want > size/100 {
		t.Fatalf("net/http itself reads %d bytes", want)
	}
	if got != want {
		t.Errorf("%d bytes of the file are read, want %d as on a plain http.Server", got, want)
	}
}
