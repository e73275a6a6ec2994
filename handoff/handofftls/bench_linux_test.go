package handofftls

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// benchPair returns a connection whose server is crypto/tls alone, on a tap, or moved.
func benchPair(b *testing.B, kind string) (client, server net.Conn) {
	b.Helper()
	cfg := plain()
	if kind == "plain" {
		c, s := dial(b)
		tc, ts := tls.Client(c, insecure), tls.Server(s, cfg.TLS)
		shaken := make(chan error, 1)
		go func() { shaken <- tc.Handshake() }()
		if err := ts.Handshake(); err != nil {
			b.Fatal(err)
		}
		if err := <-shaken; err != nil {
			b.Fatal(err)
		}
		return tc, ts
	}
	tc, c := establish(b, cfg, insecure)
	if kind == "moved" {
		c = move(b, c)
	}
	return tc, c
}

// cpu returns the CPU time of the process.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it can't fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var kinds = []string{"plain", "tapped", "moved"}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// inTurn runs rounds of each kind in turn, and reports the medians of each kind's CPU time
// and throughput as ratios to those of plain crypto/tls in the same round.
func inTurn(b *testing.B, round func(client, server net.Conn)) {
	b.Helper()
	var clients, servers []net.Conn
	for _, kind := range kinds {
		c, s := benchPair(b, kind)
		for _, nc := range []net.Conn{c, s} {
			_ = nc.SetDeadline(time.Time{}) // a benchmark may last
		}
		clients, servers = append(clients, c), append(servers, s)
	}
	cpus, throughputs := make([][]float64, len(kinds)), make([][]float64, len(kinds))
	for i := range kinds {
		round(clients[i], servers[i])
	}
	for b.Loop() {
		used, took := make([]float64, len(kinds)), make([]float64, len(kinds))
		for i := range kinds {
			began, at := cpu(), time.Now()
			round(clients[i], servers[i])
			used[i], took[i] = (cpu() - began).Seconds(), time.Since(at).Seconds()
		}
		for i := range kinds {
			cpus[i] = append(cpus[i], used[i]/used[0])
			throughputs[i] = append(throughputs[i], took[0]/took[i])
		}
	}
	for i, kind := range kinds {
		if i > 0 {
			b.ReportMetric(median(cpus[i]), kind+"-cpu/plain")
			b.ReportMetric(median(throughputs[i]), kind+"-throughput/plain")
		}
	}
}

func transfer(b *testing.B, from io.Writer, to io.Reader, n int) {
	b.Helper()
	sent := make(chan error, 1)
	go func() { _, err := from.Write(make([]byte, n)); sent <- err }()
	if _, err := io.CopyN(io.Discard, to, int64(n)); err != nil {
		b.Fatal(err)
	}
	if err := <-sent; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkUpload and its siblings compare a connection of crypto/tls with one that can
// move and one that has moved.
func BenchmarkUpload(b *testing.B) {
	inTurn(b, func(c, s net.Conn) { transfer(b, c, s, 8<<20) })
}

func BenchmarkDownload(b *testing.B) {
	inTurn(b, func(c, s net.Conn) { transfer(b, s, c, 8<<20) })
}

func BenchmarkRequests(b *testing.B) {
	inTurn(b, func(c, s net.Conn) {
		for range 500 {
			transfer(b, c, s, 500)
			transfer(b, s, c, 500)
		}
	})
}

// BenchmarkMove moves an idle connection within the process: what Send and Receive need
// beside the transfer. Each move but the first is of a connection that has moved.
func BenchmarkMove(b *testing.B) {
	tc, c := establish(b, plain(), insecure)
	b.ReportAllocs()
	for b.Loop() {
		c = move(b, c)
	}
	b.StopTimer()
	_ = c.SetDeadline(time.Now().Add(patience)) // the exchange returns the error
	_ = tc.SetDeadline(time.Now().Add(patience))
	both(b, tc, c, "after all")
}

// BenchmarkMemory reports how much memory an idle connection takes.
func BenchmarkMemory(b *testing.B) {
	const n = 300
	perConn := make(map[string]float64)
	for b.Loop() {
		for _, kind := range kinds {
			cfg := plain()
			var keep []any
			before := heap()
			for range n {
				near, far := net.Pipe()
				tc := tls.Client(far, insecure)
				go func() { _ = tc.Handshake() }() // Server tells
				if kind == "plain" {
					s := tls.Server(near, cfg.TLS)
					if err := s.Handshake(); err != nil {
						b.Fatal(err)
					}
					keep = append(keep, s, tc)
					continue
				}
				c, err := Server(b.Context(), near, cfg)
				if err != nil {
					b.Fatal(err)
				}
				if kind == "moved" {
					c = move(b, c)
				}
				keep = append(keep, c, tc)
			}
			perConn[kind] = float64(heap()-before) / n
			runtime.KeepAlive(keep)
		}
	}
	for _, kind := range kinds[1:] {
		b.ReportMetric(perConn[kind]-perConn["plain"], kind+"-more-B/conn")
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
