package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// A load is clients of a service.
type load struct {
	address string
	open    func(ctx context.Context, address string) (*dialog, error)
	asked   atomic.Int64
	failed  atomic.Int64

	mu  sync.Mutex
	why []error // of the first failures
}

// press has clients ask until stop is called, which returns when they have ended. Each
// keeps its connection for a number of requests, and sends none twice.
func (l *load) press(tb testing.TB) (stop func()) {
	const clients = 3
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	over := make(chan struct{})
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() { // ends with over
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				case <-tick.C:
				}
				if err := l.talk(ctx, tick.C, fmt.Sprintf("t%d-%d", i, n)); err != nil {
					l.failed.Add(1)
					l.mu.Lock()
					if len(l.why) < 3 {
						l.why = append(l.why, err)
					}
					l.mu.Unlock()
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		close(over)
		all.Wait()
		cancel()
		tb.Logf("%d requests, %d connections failed: %v", l.asked.Load(), l.failed.Load(), errors.Join(l.why...))
	})
}

// talk is one connection.
func (l *load) talk(ctx context.Context, tick <-chan time.Time, name string) error {
	const questions = 20
	d, err := l.open(ctx, l.address)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	for i := range questions {
		token := fmt.Sprintf("%s-%d", name, i)
		answer, last, err := d.ask(ctx, token)
		if err != nil {
			return errors.Join(fmt.Errorf("request %d: %w", i, err), d.close())
		}
		l.asked.Add(1)
		if !strings.HasSuffix(answer, " "+token) {
			return errors.Join(fmt.Errorf("request %d: answer %q to %q", i, answer, token), d.close())
		}
		if last {
			break
		}
		<-tick
	}
	return d.close()
}

// TestUpgrade upgrades each service while clients use it.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(context.Context, string) (*dialog, error){
		"gin": openWeb, "echo": openWeb, "chi": openWeb, "gorilla/mux": openWeb, "fiber": openWeb,
		"connect": openConnect, "coder/websocket": openWebSocket, "gorilla/websocket": openWebSocket,
		"dns": openDNS("udp"), "dns, tcp": openDNS("tcp"), "ssh": openSSH, "smtp": openSMTP, "mqtt": openMQTT,
	} {
		for _, mode := range []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain} {
			t.Run(name+"/"+string(mode), func(t *testing.T) {
				t.Parallel()
				if mode != handoff.Takeover {
					testenv.Long(t, "TestUpgrade")
					if !slices.Contains([]string{"gin", "coder/websocket", "fiber", "dns", "ssh"}, name) {
						t.Skip("another row stands for it in this mode")
					}
				}
				s := start(t, name, mode)
				l := &load{address: s.address, open: open}
				stop := l.press(t)
				defer stop()
				for range testenv.Times(1, 3) {
					if r := s.upgrade(); r.Cut != 0 {
						t.Errorf("%d connections cut: %v", r.Cut, r.CutBy)
					}
				}
				stop()
				if l.failed.Load() > 0 || l.asked.Load() == 0 {
					t.Errorf("%d requests, %d connections failed", l.asked.Load(), l.failed.Load())
				}
				s.signal(syscall.SIGTERM)
				s.wait("exit")
			})
		}
	}
}

// TestControl has the clients count what a service loses that closes its connections.
func TestControl(t *testing.T) {
	t.Parallel()
	s := start(t, "control", handoff.Takeover)
	l := &load{address: s.address, open: openWeb}
	stop := l.press(t)
	defer stop()
	for range 20 {
		s.upgrade()
		if l.failed.Load() > 0 {
			return
		}
	}
	t.Error("nothing was lost in 20 upgrades: TestUpgrade proves nothing")
}
