package handoff_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// TestSuccessorKilledWhileMoving kills the successor when its program has got some of
// the moving connections, and the predecessor has not received that. Each connection
// has one server or is closed. The predecessor serves those that it keeps for as long
// as the client wants.
func TestSuccessorKilledWhileMoving(t *testing.T) {
	const n, announced = 200, 16 // the successor says for so many at once that it takes them
	cases := []struct {
		name  string
		how   string // "wait": it is killed from outside, when all that it got have answers
		after int    // connections that its program has got
	}{
		{"with one", "wait", 1},
		{"with half of them", "wait", n / 2},
		{"by itself", "kill", 40},
	}
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Move: true, Linger: patience}).start()
				all := dialMovers(t, s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"], n)
				s.plan(plan{At: "moving", How: c.how, After: c.after})
				s.upgrade()
				successor := 0
				if c.how == "wait" {
					successor = s.wait("waits").PID
				}
				var answered [3]atomic.Int64 // by generation
				asking := all.ask("lf\n", func(gen int) { answered[gen].Add(1) })
				if c.how == "wait" {
					eventually(t, "what the successor has got is served", func() bool { return answered[2].Load() == int64(c.after) })
					if err := syscall.Kill(successor, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
				asking.Wait()
				// Nothing is under way any more: each is the predecessor's, or at its end.
				all.ask("half\n", func(int) {}).Wait()
				var kept movers
				unanswered := 0
				for i, m := range all {
					switch {
					case m.err == nil && slices.Equal(m.answers, []int{1, 1}):
						kept = append(kept, m)
					case !errors.Is(m.err, errOver) || len(m.answers) > 1:
						t.Errorf("connection %d was answered by generations %v, then: %v; want an end, or all by 1", i, m.answers, m.err)
					case !slices.Equal(m.answers, []int{2}): // perhaps by 1, before it was to move
						unanswered++
					}
				}
				t.Logf("%d kept, %d answered by the successor, %d unanswered", len(kept), answered[2].Load(), unanswered)
				if len(kept) < n-c.after-announced || unanswered > announced && c.how == "wait" {
					t.Errorf("%d connections kept, %d answered by the successor, %d unanswered", len(kept), answered[2].Load(), unanswered)
				}
				if len(kept) == 0 {
					return
				}
				// The predecessor lingers until the last of them is closed.
				for _, m := range kept[1:] {
					_ = m.Close()
				}
				last := kept[:1]
				if last.ask("half\n", func(int) {}).Wait(); last[0].err != nil || last[0].answers[2] != 1 {
					t.Errorf("the last connection was answered by %v, then: %v", last[0].answers, last[0].err)
				}
				_ = last[0].Close()
				m := s.waitFor("stopped", func(m message) bool { return m.Kind == "stopped" && m.Generation == 1 })
				if r := m.Report; r == nil || r.Moved+r.CutBy["in doubt"]+uint64(len(kept)) != n || r.Cut != r.CutBy["in doubt"] {
					t.Errorf("report: %+v, want %d connections less %d as moved or in doubt", r, n, len(kept))
				}
				s.gone(s.pidsSeen()...)
			})
		}
	})
}

// A mover is the client of a connection that moves.
type mover struct {
	net.Conn
	r       *bufio.Reader
	answers []int // generations that have answered
	err     error // nil while it is open
}

// errOver says that the server has ended the connection.
var errOver = errors.New("the end")

type movers []*mover

// dialMovers opens connections to generation 1, and sends half of a line over
// each.
func dialMovers(t *testing.T, addr string, n int) (all movers) {
	t.Helper()
	for _, c := range dialMany(t, addr, n) {
		if gen, err := askOver(c, "a"); err != nil || gen != 1 {
			t.Fatalf("generation %d, %v, want 1", gen, err)
		}
		if _, err := io.WriteString(c, "ha"); err != nil {
			t.Fatal(err)
		}
		all = append(all, &mover{Conn: c, r: bufio.NewReader(c)})
	}
	return all
}

// ask sends the rest of a line on each open connection, and calls answered with the
// generation that answers, from several goroutines.
func (all movers) ask(rest string, answered func(gen int)) *sync.WaitGroup {
	var wg sync.WaitGroup
	for _, m := range all {
		if m.err != nil {
			continue
		}
		wg.Go(func() { // ends with the answer, or at the deadline
			gen, err := m.exchange(rest)
			if m.err = err; err == nil {
				m.answers = append(m.answers, gen)
				answered(gen)
			}
		})
	}
	return &wg
}

func (m *mover) exchange(rest string) (gen int, err error) {
	if err := m.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	_, err = io.WriteString(m, rest)
	var line string
	if err == nil {
		line, err = m.r.ReadString('\n')
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return 0, fmt.Errorf("%w: %w after %q", errOver, err, line)
	case err != nil:
		return 0, err
	}
	switch line {
	case "1 half\n":
		return 1, nil
	case "2 half\n":
		return 2, nil
	}
	return 0, fmt.Errorf("answer %q", line)
}
