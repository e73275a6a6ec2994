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

// await reports to the loop that a generation is ready, or was not in time. It ends
// with that, or with g.cancel.
func (s *Supervisor) await(g *generation) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ReadyTimeout)
	g.cancel = cancel
	pid, pgid := g.pid, g.pgid
	s.wg.Go(func() {
		defer cancel()
		err := s.probe(ctx, pid, pgid)
		if errors.Is(ctx.Err(), context.Canceled) {
			return // canceled: no result is needed
		}
		s.todo.add(func() {
			switch {
			case g != s.coming && g != s.relief: // the generation has ended
			case err != nil:
				s.unready(g, fmt.Sprintf("not ready within %v: %v", s.cfg.ReadyTimeout, err))
			default:
				s.ready(g)
			}
		})
	})
}

// probe returns nil when the process is ready. When ctx ends it returns the last reason
// why the process is not.
func (s *Supervisor) probe(ctx context.Context, pid, pgid int) error {
	r := s.cfg.Ready
	var once func(context.Context) error
	switch {
	case r.Notify: // receive handles READY=1
		<-ctx.Done()
		return errors.New("it has not said READY=1")
	case r.Control != nil:
		once = func(ctx context.Context) error { return s.serves(ctx, pid) }
	case r.TCP != "":
		once = func(ctx context.Context) error {
			c, err := dialAccepted(ctx, "tcp", r.TCP, pgid)
			if err == nil {
				_ = c.Close() // accepting is the proof
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
		// The last failure says more than the timeout.
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

// serves asks the control socket whether this process is the serving one.
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

// answers requests a URL on a connection that a process of the group has accepted.
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
