package reuseport_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// traffic makes connections from several goroutines until its end is called,
// which returns how many there were and what went wrong.
func traffic(t testing.TB, address string, clients int) (count *atomic.Int64, end func() tally) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var stop atomic.Bool
	count = new(atomic.Int64)
	seen := make(tally)
	for range clients {
		wg.Go(func() { // ends with stop
			for !stop.Load() {
				err := exchange(address)
				count.Add(1)
				mu.Lock()
				seen.note(err)
				mu.Unlock()
			}
		})
	}
	finish := func() tally {
		stop.Store(true)
		wg.Wait()
		return seen
	}
	t.Cleanup(func() { finish() })
	return count, finish
}

func exchange(address string) error {
	nc, err := net.DialTimeout("tcp", address, 15*time.Second)
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.(*net.TCPConn).SetLinger(0) // no TIME_WAIT
	return ask(nc)
}

// group returns a group that serves.
func group(t testing.TB, network, address string, n int) *reuseport.Group {
	t.Helper()
	g, err := reuseport.ListenGroup(context.Background(), network, address, &reuseport.Config{Members: n})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	for _, l := range g.Members() {
		go serveEcho(l)
	}
	return g
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// Members of other processes drain at the same time, over and over: they take
// turns, and no connection is lost.
func TestDrainOfSeveralProcesses(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g := group(t, "tcp4", "127.66.32.1:0", 2)
	address := g.Addr().String()
	_, end := traffic(t, address, 8)
	for range 3 {
		var procs []*process
		for range 3 {
			procs = append(procs, startMembers(t, "tcp4", address, 2))
		}
		var wg sync.WaitGroup
		for _, p := range procs {
			wg.Go(func() { // ends with the answer of p
				if got, want := p.say("drain"), "drained steer false 0 <nil>"; got != want {
					t.Errorf("drain in a process: %q, want %q", got, want)
				}
			})
		}
		l, err := g.Add(ctx)
		if err != nil {
			t.Fatal(err)
		}
		go serveEcho(l)
		if r, err := g.Members()[0].Drain(ctx); err != nil || r.LossPossible {
			t.Errorf("Drain: %+v, %v", r, err)
		}
		wg.Wait()
	}
	if seen := end(); seen.lost() > 0 {
		t.Errorf("lost %v, want none", seen)
	}
}

// Members of a process that knows nothing of taking turns come while others
// drain, which moves no connection to a member that leaves.
func TestDrainWhileOthersCome(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g := group(t, "tcp4", "127.66.39.2:0", 2)
	address := g.Addr().String()
	_, end := traffic(t, address, 8)
	var stop atomic.Bool
	var came atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() { // ends with stop, or when there are many
		lc := net.ListenConfig{Control: reuseport.Control(nil)}
		lc.SetMultipathTCP(false)
		pace := time.NewTicker(time.Millisecond) // or all have come before the second drain
		defer pace.Stop()
		for !stop.Load() && came.Load() < 200 {
			<-pace.C
			ln, err := lc.Listen(ctx, "tcp4", address)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = ln.Close() })
			came.Add(1)
			go serveEcho(ln)
		}
	})
	changed := 0
	for range 20 {
		l, err := g.Add(ctx)
		if err != nil {
			t.Fatal(err)
		}
		go serveEcho(l)
		before := came.Load()
		r, err := g.Members()[0].Drain(ctx)
		if err != nil || r.Members != 1 || r.LossPossible || r.Left != 0 {
			t.Errorf("Drain: %+v, %v", r, err)
		}
		if came.Load() > before {
			changed++
		}
	}
	stop.Store(true)
	wg.Wait()
	if seen := end(); seen.lost() > 0 {
		t.Errorf("lost %v, want none", seen)
	}
	if changed == 0 {
		t.Errorf("%d came, none of them during a drain, which shows nothing", came.Load())
	}
}

// Members of a process that knows nothing of taking turns come and go while
// others drain, which ends all the same. (A member that closes like
// that loses connections, so no client makes any meanwhile.)
func TestDrainWhileOthersComeAndGo(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g := group(t, "tcp4", "127.66.32.2:0", 2)
	address := g.Addr().String()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // ends with stop
		for {
			select {
			case <-stop:
				return
			default:
			}
			l, err := reuseport.Listen(ctx, "tcp4", address, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	for range 20 {
		l, err := g.Add(ctx)
		if err != nil {
			t.Fatal(err)
		}
		go serveEcho(l)
		if r, err := g.Members()[0].Drain(ctx); err != nil || r.Members != 1 {
			t.Errorf("Drain: %+v, %v", r, err)
		}
	}
	close(stop)
	wg.Wait()
	for range 20 {
		if err := exchange(address); err != nil {
			t.Error(err)
		}
	}
}

// A process that is killed in the middle of a drain takes what it had accepted
// along, and nothing else: the group serves, whatever program is on it.
func TestKilledInDrain(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g := group(t, "tcp4", "127.66.32.3:0", 2)
	address := g.Addr().String()
	p := startMembers(t, "tcp4", address, 2, "stuck")
	if got := p.say("stuck"); got != "steered" {
		t.Fatalf("helper says %q, want steered", got)
	}
	count, end := traffic(t, address, 4)
	waitFor(t, func() bool { return count.Load() > 100 })
	p.kill()
	from := count.Load()
	waitFor(t, func() bool { return count.Load() > from+200 })
	if seen := end(); seen.lost() > 0 {
		t.Errorf("lost %v, want none", seen)
	}

	// Its turn has ended with it, so the group can be steered and drained.
	l, err := g.Add(ctx)
	if err != nil {
		t.Fatal(err)
	}
	go serveEcho(l)
	if err := g.Steer(ctx, reuseport.Hash()); err != nil {
		t.Fatal(err)
	}
	for l.Accepted() == 0 && ctx.Err() == nil {
		if err := exchange(address); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := g.Members()[0].Drain(ctx); err != nil || r.LossPossible {
		t.Errorf("Drain after the kill: %+v, %v", r, err)
	}
}

// Steer with a context that has ended takes no turn but one that is free.
func TestSteerWithoutWaiting(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	check := func(network string, steer, other func(context.Context, reuseport.Steering) error, away reuseport.Member) {
		t.Helper()
		if err := steer(ctx, reuseport.Away(away)); err != nil {
			t.Fatal(err)
		}
		if err := other(ended, reuseport.Hash()); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Steer() while another group's is Away = %v, want context.Canceled", network, err)
		}
		if err := steer(ctx, reuseport.Hash()); err != nil {
			t.Fatal(err)
		}
		if err := other(ended, reuseport.Hash()); err != nil {
			t.Errorf("%s: Steer() when no process has the turn = %v", network, err)
		}
	}
	tcp := group(t, "tcp4", "127.66.32.5:0", 2)
	check("tcp", tcp.Steer, group(t, "tcp4", tcp.Addr().String(), 1).Steer, tcp.Members()[0])

	var udp []*reuseport.PacketGroup
	address := "127.66.32.5:0"
	for range 2 {
		g, err := reuseport.ListenPacketGroup(ctx, "udp4", address, &reuseport.Config{Members: 2})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = g.Close() })
		udp, address = append(udp, g), g.Members()[0].LocalAddr().String()
	}
	check("udp", udp[0].Steer, udp[1].Steer, udp[0].Members()[0])
}

// The last member of a process takes the program off when it leaves: members
// that join later get their share.
func TestNoProgramIsLeftBehind(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			first := group(t, f.network, f.listen, 1)
			_, port, err := net.SplitHostPort(first.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			address := net.JoinHostPort(f.dial, port)
			stay := group(t, f.network, first.Addr().String(), 1)
			_, end := traffic(t, address, 4)
			r, err := first.Drain(ctx)
			if err != nil || r.LossPossible || r.Strategy != reuseport.StrategySteer || r.Reason != "" {
				t.Fatalf("Drain: %+v, %v", r, err)
			}
			if seen := end(); seen.lost() > 0 {
				t.Errorf("lost %v, want none", seen)
			}
			later := group(t, f.network, first.Addr().String(), 1)
			for stay.Members()[0].Accepted() == 0 || later.Members()[0].Accepted() == 0 {
				if err := exchange(address); err != nil {
					t.Fatal(err)
				}
				if ctx.Err() != nil {
					t.Fatalf("accepted %d and %d, want both above 0", stay.Members()[0].Accepted(), later.Members()[0].Accepted())
				}
			}
		})
	}
}

// A drain whose time is up closes, and says what was left.
func TestDrainDeadline(t *testing.T) {
	t.Parallel()
	g, err := reuseport.ListenGroup(context.Background(), "tcp4", "127.66.32.4:0", &reuseport.Config{Members: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	dial(t, "tcp", g.Addr().String(), 7)
	group(t, "tcp4", g.Addr().String(), 1)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	l := g.Members()[0]
	r, err := l.Drain(ctx)
	if !isIncomplete(err) || r.Left != 7 || !r.LossPossible || r.Members != 1 {
		t.Errorf("Drain = %+v, %v, want 7 left and ErrIncomplete", r, err)
	}
	if _, err := l.Accept(); !isClosed(err) {
		t.Errorf("Accept after Drain: %v, want ErrClosed", err)
	}
	if r, err := l.Drain(ctx); !isClosed(err) {
		t.Errorf("second Drain = %+v, %v, want ErrClosed", r, err)
	}
}

// However early the time is up, the report has all that was lost.
func TestDrainDeadlineCountsAll(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		members int
		stay    bool
		time    time.Duration
	}{
		{"at once", 1, false, 0},
		{"at once, others stay", 1, true, 0},
		{"several at once", 4, true, 0},
		{"several in several steps", 4, true, 50 * time.Millisecond},
		{"several, none stays", 4, false, 50 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g, err := reuseport.ListenGroup(context.Background(), "tcp4", "127.66.32.5:0", &reuseport.Config{Members: tt.members})
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			dial(t, "tcp", g.Addr().String(), 20)
			if tt.stay {
				group(t, "tcp4", g.Addr().String(), 1)
			}
			ctx, cancel := context.WithTimeout(context.Background(), tt.time)
			defer cancel()
			r, err := g.Drain(ctx)
			if !isIncomplete(err) || r.Left != 20 || !r.LossPossible || r.Strategy == "" || r.Members != tt.members {
				t.Errorf("Drain = %+v, %v, want 20 left, a strategy and ErrIncomplete", r, err)
			}
		})
	}
}

// A group drains although one of its members does so already.
func TestDrainOfGroupAndMember(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	stay := group(t, "tcp4", "127.66.32.6:0", 1)
	g, err := reuseport.ListenGroup(ctx, "tcp4", stay.Addr().String(), &reuseport.Config{Members: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	first := g.Members()[0]
	dial(t, "tcp", g.Addr().String(), 30) // some are in first, which holds it up
	n, _, err := reuseport.QueueLen(first)
	if err != nil || n == 0 {
		t.Fatalf("QueueLen = %d, %v, want some", n, err)
	}
	done := make(chan error, 2)
	go func() { // ends with the drain
		_, err := first.Drain(ctx)
		done <- err
	}()
	waitFor(t, g.Leaving)
	go func() { // likewise
		_, err := g.Drain(ctx)
		done <- err
	}()
	waitFor(t, g.Closed)
	for _, l := range g.Members() {
		go serveEcho(l) // ends with the member
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("Drain: %v", err)
		}
	}
	if left := g.Members(); len(left) > 0 {
		t.Errorf("%d members are left", len(left))
	}
}

// waitFor asks ok, of which the kernel sends no event, until it is true.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("waited too long")
		}
	}
}
