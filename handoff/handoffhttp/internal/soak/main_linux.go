package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp/internal/rig"
)

// envRole makes this program the service or the client.
const envRole = "BATON_SOAK_ROLE"

// errParent is tableflip's, with no name there.
const errParent = "parent hasn't exited"

type options struct {
	upgrades int
	posts    uint64
	clients  int
	body     int
	modes    string
	hows     string
	limit    time.Duration
}

// run is one row of the table.
type run struct {
	how      string
	mode     handoff.Mode
	upgrades int
	cuts     uint64
	moved    int
	linger   []time.Duration // how long each predecessor went on after commit
	took     time.Duration
	out      rig.Outcome
	err      error
}

func main() {
	switch os.Getenv(envRole) {
	case "service":
		rig.ServerMain(nil)
		return
	case "client":
		rig.ClientMain(os.Args[1:])
		return
	}
	var o options
	flag.IntVar(&o.upgrades, "upgrades", 200, "upgrades in each run")
	flag.Uint64Var(&o.posts, "posts", 0, "POSTs in each run of Baton's; 0 means 10,000 for each upgrade")
	flag.IntVar(&o.clients, "clients", 64, "keep-alive clients, none of which sends a request again")
	flag.IntVar(&o.body, "body", 64, "bytes of each request")
	flag.StringVar(&o.modes, "modes", "inherit,takeover,drain", "modes to run in")
	flag.StringVar(&o.hows, "how", "baton,shutdown,tableflip", "what to run: baton, shutdown (http.Server.Shutdown on package handoff), tableflip (the same on plain tableflip)")
	flag.DurationVar(&o.limit, "limit", 2*time.Hour, "the program's own limit")
	flag.Parse()
	if o.posts == 0 {
		o.posts = uint64(o.upgrades) * 10000
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("not done within %v", o.limit))
	defer cancel()
	os.Exit(o.soak(ctx, os.Stdout))
}

// soak does all runs and returns the exit status.
func (o *options) soak(ctx context.Context, w io.Writer) int {
	var runs []*run
	for _, mode := range []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain} {
		if !slices.Contains(strings.Split(o.modes, ","), string(mode)) {
			continue
		}
		for how := range strings.SplitSeq(o.hows, ",") {
			if how == rig.Tableflip && mode != handoff.Inherit {
				continue // it knows one mode
			}
			r := &run{how: how, mode: mode}
			runs = append(runs, r)
			fmt.Fprintf(os.Stderr, "%s, %s: %d upgrades under %d clients\n", how, mode, o.upgrades, o.clients)
			r.err = o.run(ctx, r)
			if r.err != nil {
				fmt.Fprintf(os.Stderr, "%s, %s: %v\n", how, mode, r.err)
			}
		}
	}
	return report(w, runs)
}

func (o *options) run(ctx context.Context, r *run) error {
	dir, err := os.MkdirTemp("", "baton")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := func(role string, args ...string) *exec.Cmd {
		cmd := exec.Command(self, args...)
		cmd.Env = append(os.Environ(), envRole+"="+role)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	s, err := rig.Start(ctx, command("service"), rig.Settings{How: r.how, Mode: r.mode, Dir: dir, Probation: time.Millisecond})
	if err != nil {
		return err
	}
	defer s.Kill()
	c, err := rig.StartClient(rig.Load{Addr: s.Settings.Addr, Clients: o.clients, Body: o.body}, func(arg string) *exec.Cmd { return command("client", arg) })
	if err != nil {
		return err
	}
	began := time.Now()
	err = o.upgrade(ctx, r, s, c)
	r.took = time.Since(began)
	var stopErr error
	r.out, stopErr = c.Stop()
	if err := errors.Join(err, stopErr); err != nil {
		return err
	}
	_, err = s.Stop(ctx)
	return err
}

// upgrade upgrades the service while the client sends requests.
func (o *options) upgrade(ctx context.Context, r *run, s *rig.Service, c *rig.Client) error {
	// The control has to show that it loses requests, which takes less.
	posts := o.posts
	if r.how != rig.Baton {
		posts /= 10
	}
	for i := range o.upgrades {
		m, err := replace(ctx, r.how, s)
		if err != nil {
			return err
		}
		r.upgrades++
		end, err := s.Exit(ctx, m.PID)
		if err != nil {
			return err
		}
		r.linger = append(r.linger, end.Time.Sub(m.Time))
		if l := end.Linger; l != nil {
			r.moved += l.Moved
			for _, n := range l.Cut {
				r.cuts += n
			}
		}
		n, err := c.Count()
		if err != nil {
			return err
		}
		if want := posts * uint64(i+1) / uint64(o.upgrades); n < want {
			if err := c.More(ctx, want-n); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace upgrades the service once. tableflip refuses an upgrade while its predecessor
// is ending, and may miss a signal that arrives then.
func replace(ctx context.Context, how string, s *rig.Service) (rig.Message, error) {
	if how != rig.Tableflip {
		return s.Upgrade(ctx)
	}
	for {
		bound, cancel := context.WithTimeout(ctx, 10*time.Second)
		m, err := s.Upgrade(bound)
		cancel()
		again := m.Err == errParent || errors.Is(err, context.DeadlineExceeded)
		if err == nil || !again || ctx.Err() != nil {
			return m, err
		}
		<-time.After(10 * time.Millisecond)
	}
}

// report writes the table and the result, and returns the exit status: 1 if
// Baton has failed a request, or if the control has failed none.
func report(w io.Writer, runs []*run) int {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "how\tmode\tupgrades\trequests\tfailed\tconnections\tmoved\tcut\tlinger p50\tmax\tresponse p99\tmax\trequests/s\t")
	var upgrades int
	var requests, failed, control uint64
	controls, broken := 0, false
	for _, r := range runs {
		slices.Sort(r.linger)
		var p50, worst time.Duration
		if n := len(r.linger); n > 0 {
			p50, worst = r.linger[n/2], r.linger[n-1]
		}
		all := r.out.OK + r.out.Failed
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%v\t%v\t%v\t%v\t%.0f\t\n", r.how, r.mode, r.upgrades, all, r.out.Failed, r.out.Conns, r.moved, r.cuts,
			p50.Round(100*time.Microsecond), worst.Round(100*time.Microsecond), r.out.P99.Round(10*time.Microsecond), r.out.Max.Round(100*time.Microsecond), float64(all)/r.took.Seconds())
		broken = broken || r.err != nil || r.cuts > 0
		if r.how == rig.Baton {
			upgrades, requests, failed = upgrades+r.upgrades, requests+all, failed+r.out.Failed
		} else {
			controls++
			control += r.out.Failed
		}
	}
	_ = t.Flush()
	for _, r := range runs {
		for what, n := range r.out.Errors {
			fmt.Fprintf(w, "%s, %s: %d × %s\n", r.how, r.mode, n, what)
		}
	}
	status := 0
	switch {
	case broken:
		fmt.Fprintln(w, "a run did not finish, or connections were cut: see above")
		status = 1
	case failed > 0:
		status = 1
	case controls > 0 && control == 0:
		fmt.Fprintln(w, "the control has lost no request: the load proves nothing")
		status = 1
	}
	fmt.Fprintf(w, "result: upgrades=%d requests=%d failed=%d\n", upgrades, requests, failed)
	return status
}
