package handoffhttp_test

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// More of the same: -seed=100 -seeds=50.
var (
	firstSeed = flag.Uint64("seed", 0, "first seed of the tests with random schedules")
	seeds     = flag.Uint64("seeds", 4, "how many seeds they have")
)

// TestRandomStreams has clients send requests of all kinds, pipelined or one by
// one, cut into pieces at random, while generations replace each other: each
// request is served exactly once, and the responses come in order. A byte lost
// or sent twice shows as a request that is malformed, missing or has another
// body.
func TestRandomStreams(t *testing.T) {
	t.Parallel()
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			randomStreams(t, seed)
		})
	}
}

func randomStreams(t *testing.T, seed uint64) {
	clients, requests := 12, testenv.Times(50, 150)
	l := newLine(t, nil, nil)
	var wg sync.WaitGroup
	for i := range clients {
		c := l.dial()
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		var text strings.Builder
		type expected struct{ method, body string }
		var want []expected
		starts := []int{}
		for k := range requests {
			starts = append(starts, text.Len())
			id := fmt.Sprintf("%d-%d", i, k)
			kind := rnd.IntN(4)
			body := strings.Repeat("x", rnd.IntN(40))
			switch kind {
			case 0:
				fmt.Fprintf(&text, "GET /%s HTTP/1.1\r\nHost: h\r\nId: %s\r\n\r\n", id, id)
				want = append(want, expected{"GET", "GET /" + id + " 0:e3b0c442 "})
				continue
			case 1:
				fmt.Fprintf(&text, "POST /%s HTTP/1.1\r\nHost: h\r\nId: %s\r\nContent-Length: %d\r\n\r\n%s", id, id, len(body), body)
			case 2:
				fmt.Fprintf(&text, "POST /%s HTTP/1.1\r\nHost: h\r\nId: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\nx%s\r\n0\r\n\r\n", id, id, len(body)+1, body)
				body += "x"
			case 3:
				fmt.Fprintf(&text, "POST /%s HTTP/1.1\r\nHost: h\r\nId: %s\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n%x\r\nx%s\r\n0\r\nT: \r\n\r\n", id, id, len(body)+1, body)
				body += "x"
			}
			want = append(want, expected{"POST", fmt.Sprintf("POST /%s %d:%s ", id, len(body), sum(body))})
		}
		all := text.String()
		oneByOne := i%3 == 0
		answered := make(chan struct{}, requests)
		wg.Go(func() {
			next := 0
			for sent := 0; sent < len(all); {
				n := min(len(all)-sent, 1+rnd.IntN(1+rnd.IntN(200)))
				if oneByOne && next+1 < len(starts) && sent+n > starts[next+1] {
					n = starts[next+1] - sent + rnd.IntN(4) // up to three bytes ahead
					n = min(n, len(all)-sent)
				}
				if _, err := io.WriteString(c.nc, all[sent:sent+n]); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				sent += n
				for oneByOne && next+1 < len(starts) && sent >= starts[next+1] {
					<-answered
					next++
				}
			}
		})
		wg.Go(func() {
			for k, w := range want {
				res, err := c.receive(w.method)
				if err != nil || res.body != w.body {
					t.Errorf("client %d, request %d: %+v, %v, want %q", i, k, res, err, w.body)
					for range want[k:] {
						answered <- struct{}{}
					}
					return
				}
				if res.close {
					t.Errorf("client %d, request %d: the server closes", i, k)
				}
				answered <- struct{}{}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	upgrades, moved := 0, 0
	var waiting []*generation
	for {
		select {
		case <-done:
			for _, g := range waiting {
				moved += g.gone(t).Moved
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(l.served) != clients*requests {
				t.Errorf("%d requests served, want %d", len(l.served), clients*requests)
			}
			for id, n := range l.served {
				if n != 1 {
					t.Errorf("request %s served %d times", id, n)
				}
			}
			if moved == 0 {
				t.Error("no connection moved: the test has shown nothing")
			}
			t.Logf("%d upgrades, %d moves", upgrades, moved)
			return
		default:
			if upgrades < 60 {
				waiting = append(waiting, l.replace())
				upgrades++
			}
			if len(waiting) > 3 {
				moved += waiting[0].gone(t).Moved
				waiting = waiting[1:]
			}
		}
	}
}
