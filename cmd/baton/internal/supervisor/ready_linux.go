package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

const (
	// probeTick is the pause between two probes.
	probeTick = 50 * time.Millisecond
	// probeTimeout bounds one.
	probeTimeout = 2 * time.Second
)

// await tells the loop when a generation is ready, or is not in time. It ends
// with that, or with g.cancel.
func (s *Supervisor) await(g *generation) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ReadyTimeout)
	g.cancel = cancel
	pid, pgid := g.pid, g.pgid
	s.wg.Go(func() {
		defer cancel()
		err := s.probe(ctx, pid, pgid)
		if errors.Is(ctx.Err(), context.Canceled) {
			return // the result is not needed any more
		}
		s.todo.add(func() {
			switch {
			case g != s.coming && g != s.relief: // it has ended
			case err != nil:
				s.unready(g, fmt.Sprintf("not ready within %v: %v", s.cfg.ReadyTimeout, err))
			default:
				s.ready(g)
			}
		})
	})
}

// probe returns nil when the process is ready, or when ctx ends the last reason why
// it is not.
func (s *Supervisor) probe(ctx context.Context, pid, pgid int) error {
	r := s.cfg.Ready
	var once func(context.Context) error
	switch {
	case r.Notify: // heard handles it
		<-ctx.Done()
		return errors.New("it has not said READY=1")
	case r.Control != nil:
		once = func(ctx context.Context) error { return s.serves(ctx, pid) }
	case r.TCP != "":
		once = func(ctx context.Context) error {
			c, err := dialAccepted(ctx, "tcp", r.TCP, pgid)
			if err == nil {
				_ = c.Close() // accepted, which is all
			}
			return err
		}
	case r.HTTP != "":
		once = func(ctx context.Context) error { return answers(ctx, r.HTTP, pgid) }
	default:
		t := time.NewTimer(r.after())
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	tick := time.NewTicker(probeTick)
	defer tick.Stop()
	var why error
	for {
		one, cancel := context.WithTimeout(ctx, probeTimeout)
		err := once(one)
		cancel()
		if err == nil {
			return nil
		}
		// That the time was up says less than what came before.
		if why == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
			why = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return why
		}
	}
}

// serves asks at the control socket whether the process is the one that serves.
func (s *Supervisor) serves(ctx context.Context, pid int) error {
	st, err := s.cfg.Ready.Control.Status(ctx)
	switch {
	case err != nil:
		return err
	case st.PID != pid:
		return fmt.Errorf("pid %d serves there", st.PID)
	case st.State != handoff.StateServing:
		return fmt.Errorf("it is %s", st.State)
	}
	return nil
}

// answers asks a URL, on a connection that a process of the group has accepted.
func answers(ctx context.Context, url string, pgid int) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialAccepted(ctx, network, address, pgid)
		},
	}
	defer transport.CloseIdleConnections()
	client := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "baton run")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // the status is all
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
