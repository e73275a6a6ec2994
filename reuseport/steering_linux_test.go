package reuseport_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// share makes n connections and returns the percentage that each member got.
func share(t *testing.T, g *reuseport.Group, address string, n int) []float64 {
	t.Helper()
	ms := g.Members()
	before := make([]int64, len(ms))
	for i, l := range ms {
		before[i] = l.Accepted()
	}
	for range n {
		if err := exchange(address); err != nil {
			t.Fatal(err)
		}
	}
	var sum int64
	for i, l := range ms {
		sum += l.Accepted() - before[i]
	}
	if sum != int64(n) {
		t.Errorf("members accepted %d connections, want %d", sum, n)
	}
	shares := make([]float64, len(ms))
	for i, l := range ms {
		shares[i] = 100 * float64(l.Accepted()-before[i]) / float64(n)
	}
	return shares
}

func TestSteer(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			g := group(t, f.network, f.listen, 3)
			ms := g.Members()
			address := at(ms[0], f.dial)
			for _, s := range []struct {
				steering reuseport.Steering
				want     []float64
				within   float64
			}{
				{reuseport.Away(ms[1]), []float64{50, 0, 50}, 15},
				{reuseport.Away(ms[0], ms[1]), []float64{0, 0, 100}, 0},
				{reuseport.Weights(0, 1, 0), []float64{0, 100, 0}, 0},
				{reuseport.Weights(20, 30, 50), []float64{20, 30, 50}, 15},
				{reuseport.Hash(), []float64{33, 33, 33}, 15},
			} {
				if err := g.Steer(ctx, s.steering); err != nil {
					t.Fatalf("Steer(%v): %v", s.steering, err)
				}
				got := share(t, g, address, 200)
				for i := range got {
					if got[i] < s.want[i]-s.within || got[i] > s.want[i]+s.within {
						t.Errorf("Steer(%v): shares %v, want %v ± %v", s.steering, got, s.want, s.within)
						break
					}
				}
			}
		})
	}
}

// Members that leave do not disturb what the others are steered by.
func TestSteeringAfterDrain(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g := group(t, "tcp4", "127.66.33.1:0", 4)
	ms := g.Members()
	if err := g.Steer(ctx, reuseport.Away(ms[3])); err != nil {
		t.Fatal(err)
	}
	if _, err := ms[0].Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if got := share(t, g, g.Addr().String(), 100); got[2] != 0 || got[0] == 0 || got[1] == 0 {
		t.Errorf("shares after a drain %v, want none for the last", got)
	}
	if _, err := ms[3].Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if got := g.Steering(); got.String() != "hash" {
		t.Errorf("steering after the last member of Away has left: %v, want hash", got)
	}
	if got := share(t, g, g.Addr().String(), 100); got[0] == 0 || got[1] == 0 {
		t.Errorf("shares %v, want both above 0", got)
	}
}

// CPU gives each connection to the member of the CPU that it arrives at, which
// on the loopback interface is that of the client.
func TestSteerCPU(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		t.Fatal(err)
	}
	g := group(t, "tcp4", "127.66.33.2:0", 2)
	if err := g.Steer(ctx, reuseport.CPU()); err != nil {
		t.Fatal(err)
	}
	for cpu := range 2 {
		if !cpus.IsSet(cpu) {
			continue
		}
		var got []float64
		onCPU(t, cpu, func() { got = share(t, g, g.Addr().String(), 50) })
		if got[cpu] < 90 { // a packet can be handled by another CPU
			t.Errorf("clients on CPU %d: shares %v, want nearly all for that member", cpu, got)
		}
	}
}

func TestSteerErrors(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g := group(t, "tcp4", "127.66.33.3:0", 2)
	other := group(t, "tcp4", "127.66.33.4:0", 1)
	for _, s := range []reuseport.Steering{
		reuseport.Weights(1), reuseport.Weights(1, -1), reuseport.Weights(0, 0), reuseport.Weights(1<<30, 1),
	} {
		if err := g.Steer(ctx, s); err == nil {
			t.Errorf("Steer(%v) = nil, want an error", s)
		}
	}
	if err := g.Steer(ctx, reuseport.Away(other.Members()[0])); !errors.Is(err, reuseport.ErrNotMember) {
		t.Errorf("Steer away from a member of another group: %v, want ErrNotMember", err)
	}
	if err := g.Steer(ctx, reuseport.Away(g.Members()[0], g.Members()[1])); !errors.Is(err, reuseport.ErrNotSteered) {
		t.Errorf("Steer away from all: %v, want ErrNotSteered", err)
	}
	if got := share(t, g, g.Addr().String(), 50); got[0] == 0 || got[1] == 0 {
		t.Errorf("shares after errors %v, want both above 0", got)
	}
}

// Steer gives up on a group that never rests when its time is over.
func TestSteerRestless(t *testing.T) {
	t.Parallel()
	g := group(t, "tcp4", "127.66.32.20:0", 2)
	lc := &net.ListenConfig{Control: reuseport.Control(nil)}
	lc.SetMultipathTCP(false)
	over, stop := context.WithCancel(testContext(t))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for range 4 {
		wg.Go(func() { // ends with over
			for over.Err() == nil {
				if ln, err := lc.Listen(over, "tcp4", g.Addr().String()); err == nil {
					_ = ln.Close() // no client knows it
				}
			}
		})
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for over.Err() == nil { // it may find a moment of rest
		err := g.Steer(ended, reuseport.CPU())
		if errors.Is(err, context.Canceled) && strings.Contains(err.Error(), "have changed during each of") {
			if got := g.Steering().String(); got != "hash" {
				t.Errorf("the steering is %s afterwards, want hash", got)
			}
			return
		}
	}
	t.Error("Steer has never given up")
}
