package main

import (
	"context"
	"encoding/json"
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

	"github.com/seed-11c92bf9/baton/internal/terminal"
)

// envRole makes this program one of the processes that take part.
const envRole = "BATON_LEAVE_ROLE"

// unprivileged is the user of the run without privilege.
const unprivileged = 65534

func main() {
	if role := os.Getenv(envRole); role != "" {
		if err := takePart(role, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "leave:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(driverMain(os.Args[1:], os.Stdout, os.Stderr))
}

func takePart(role string, args []string) error {
	switch role {
	case "service":
		return serviceMain(args)
	case "post":
		return postMain(args)
	case "h2load":
		return h2Main(args)
	}
	return fmt.Errorf("no role %q", role)
}

// self returns the command that runs a role of this program.
func self(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), envRole+"="+role)
	return cmd
}

// plan returns the runs: Baton's, and its controls with a fifth of the handovers.
func plan(handovers int, least uint64, root bool) []*run {
	me, part := os.Getuid(), max(1, handovers/5)
	runs := []*run{{Way: wayBaton, Where: "loopback", User: me, Want: handovers, Least: least}}
	if root {
		runs = append(runs,
			&run{Way: wayBaton, Where: "loopback", User: unprivileged, Want: part, Least: least / 5},
			&run{Way: wayBaton, Where: "50 ms", User: me, Want: part, Least: least / 100, RTT: 50 * time.Millisecond})
	}
	for _, way := range []string{wayDrain, wayShutdown, wayClose} {
		runs = append(runs, &run{Way: way, Where: "loopback", User: me, Want: part, Least: least / 10})
	}
	for _, r := range runs {
		r.By = make(map[string]uint64)
	}
	return runs
}

func driverMain(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("leave", flag.ContinueOnError)
	fs.SetOutput(stderr)
	handovers := fs.Int("handovers", 100, "handovers of Baton's first run; others have a fifth")
	least := fs.Uint64("requests", 1000000, "requests of that run at least")
	asJSON := fs.Bool("json", false, "print JSON; the table goes to standard error")
	limit := fs.Duration("limit", 30*time.Minute, "the program's own limit")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fs.NArg() > 0 || *handovers < 1 {
		fmt.Fprintln(stderr, "leave: -handovers is at least 1, and there are no arguments")
		return 2
	}
	progress := stdout
	if *asJSON {
		progress = stderr
	}
	screen := terminal.New(progress, progress)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, *limit, fmt.Errorf("not done within %v", *limit))
	defer cancel()
	runs := plan(*handovers, *least, os.Geteuid() == 0)
	for _, r := range runs {
		screen.Line("%s, %s, user %d: %d handovers", r.Way, r.Where, r.User, r.Want)
		if err := r.do(ctx, func(s string) { screen.Status("%s", s) }); err != nil {
			r.Error = err.Error()
		}
		screen.Clear()
	}
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(runs); err != nil {
			fmt.Fprintln(stderr, "leave:", err)
			return 1
		}
	}
	return report(progress, runs)
}

// report writes the table and the result, and returns the exit status.
func report(w io.Writer, runs []*run) int {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ends by\twhere\tuser\thandovers\trequests\tfailed\tby\trefused\tcut\tto the end p50\tmax\trequests/s")
	var handovers, status int
	var requests, failed uint64
	controls := make(map[string]uint64) // requests that they have failed, by client
	for _, r := range runs {
		slices.Sort(r.Linger)
		var p50, worst time.Duration
		if n := len(r.Linger); n > 0 {
			p50, worst = r.Linger[n/2], r.Linger[n-1]
		}
		var by strings.Builder
		for _, k := range kinds() {
			if n := r.By[k.name]; n > 0 {
				by.WriteString(fmt.Sprintf("%s %d ", k.name, n))
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%d\t%d\t%v\t%v\t%.0f\n", r.Way, r.Where, r.User, r.Handovers, r.Requests, r.Failed, by.String(), r.Refused, r.Cut,
			p50.Round(time.Millisecond), worst.Round(time.Millisecond), float64(r.Requests)/r.Seconds)
		if r.Way != wayBaton {
			for k, n := range r.By {
				controls[k] += n
			}
			continue
		}
		handovers, requests, failed = handovers+r.Handovers, requests+r.Requests, failed+r.Failed
		if r.Failed > 0 || r.Cut > 0 || r.Lossy > 0 || r.Error != "" {
			status = 1
		}
	}
	_ = t.Flush() // the terminal may be gone
	for _, r := range runs {
		if r.Error != "" {
			fmt.Fprintf(w, "%s, %s, user %d: %s\n", r.Way, r.Where, r.User, r.Error)
			status = 1
		}
		if r.Lossy > 0 {
			fmt.Fprintf(w, "%s, %s, user %d: %d drains say that loss was possible: %s\n", r.Way, r.Where, r.User, r.Lossy, r.Reason)
		}
	}
	var lost uint64
	for _, k := range kinds() {
		if lost += controls[k.name]; controls[k.name] == 0 {
			fmt.Fprintf(w, "the controls have failed no request of %s: the run proves nothing about it\n", k.name)
		}
	}
	if lost == 0 {
		fmt.Fprintln(w, "the controls have failed no request: the run proves nothing")
		status = 1
	}
	fmt.Fprintf(w, "result: handovers=%d requests=%d failed=%d\n", handovers, requests, failed)
	return status
}
