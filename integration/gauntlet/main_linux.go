package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/terminal"
)

// envRole makes this program one of the processes that take part.
const envRole = "BATON_GAUNTLET_ROLE"

func main() {
	if ran, err := takePart(os.Getenv(envRole), os.Args[1:]); ran {
		if err != nil {
			fmt.Fprintln(os.Stderr, "gauntlet:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(driverMain(os.Args[1:], os.Stdout, os.Stderr))
}

// takePart runs the role of a process other than the driver.
func takePart(role string, args []string) (ran bool, err error) {
	switch role {
	case "service":
		return true, serviceMain()
	case "clients":
		return true, clientMain(args)
	}
	return false, nil
}

// driverMain is the driver. It returns the exit status.
func driverMain(args []string, stdout, stderr io.Writer) int {
	o := options{hand: defaultHand, filtered: defaultFiltered}
	var asJSON, add bool
	var out string
	modes := modeNames()
	fs := flag.NewFlagSet("gauntlet", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.restarts, "restarts", 0, "committed upgrades, over the modes together (default 200, or as many as fit into -duration)")
	fs.DurationVar(&o.duration, "duration", 0, "time, over the modes together (default no limit)")
	fs.Uint64Var(&o.seed, "seed", 0, "seed of the faults (default a random one)")
	fs.StringVar(&modes, "modes", modes, "modes, in order")
	fs.BoolVar(&o.quick, "quick", false, "leave out faults that take seconds")
	fs.Float64Var(&o.faulty, "faults", 0.5, "part of the upgrades that a fault befalls")
	fs.Float64Var(&o.filtered, "filtered", o.filtered, "part of the service's processes started by the driver whose system calls, and their successors', can fail; 1 with -only 'system call'")
	fs.StringVar(&o.only, "only", "", "only faults whose name contains this `text`")
	fs.StringVar(&o.without, "without", "", "no faults whose name contains this `text`")
	fs.DurationVar(&o.link, "link", 50*time.Millisecond, "round trip of the far clients' link; 0 means none; needs root")
	fs.DurationVar(&o.pause, "pause", defaultPause, "the longest pause of a client between two requests")
	fs.Func("idle", "no clients of these `kinds`, parts of their names with commas: without h2 and grpc, which take a second to say goodbye, an upgrade takes half the time", func(s string) error {
		o.idle = strings.Split(s, ",")
		return nil
	})
	fs.IntVar(&o.slow, "slow", 1, "multiply the time that the service has to be ready, and to linger: for a slow machine")
	fs.BoolVar(&o.clock, "clock", false, "step the machine's clock, too: only on a machine of its own; needs root")
	fs.StringVar(&o.artifacts, "artifacts", os.TempDir(), "`folder` for the account of a failure")
	fs.BoolVar(&o.shutdown, "control", false, "end HTTP servers by http.Server.Shutdown, which loses requests")
	fs.BoolVar(&asJSON, "json", false, "print the result as JSON; progress goes to standard error")
	fs.StringVar(&out, "out", "", "`file` for the result as JSON, beside the table")
	fs.BoolVar(&add, "sum", false, "run nothing: add up the files that -out has written, which are the arguments, as a report in Markdown")
	if err := fs.Parse(args); err != nil || (fs.NArg() > 0) != add {
		return 2
	}
	if add {
		all, err := readResults(fs.Args())
		if err == nil {
			err = writeReport(stdout, all)
		}
		if err != nil {
			fmt.Fprintln(stderr, "gauntlet:", err)
			return 1
		}
		return 0
	}
	if o.pause < 0 || o.link < 0 || o.duration < 0 || o.restarts < 0 || o.slow < 1 {
		fmt.Fprintln(stderr, "gauntlet: a time or number is negative, or -slow less than 1")
		return 2
	}
	for name := range strings.SplitSeq(modes, ",") {
		o.modes = append(o.modes, handoff.Mode(name)) // New refuses one that does not exist
	}
	if o.restarts == 0 && o.duration == 0 {
		o.restarts = 200
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1e9) + 1
	}
	if os.Geteuid() != 0 {
		if o.link > 0 {
			fmt.Fprintln(stderr, "gauntlet: not root: no clients behind a link with a delay, no full disk, no other users")
		}
		o.link = 0
	} else if os.Getenv(envMounts) == "" {
		return inMounts(args, o.seed, stderr)
	} else {
		var err error
		if o.state, err = mountState(); err != nil {
			fmt.Fprintln(stderr, "gauntlet:", err)
			return 1
		}
		defer os.Remove(o.state) // its mount is gone with the driver
		defer unix.Unmount(o.state, unix.MNT_DETACH)
	}
	progress := stdout
	if asJSON {
		progress = stderr
	}
	fmt.Fprintf(progress, "gauntlet: seed %d\n", o.seed)
	screen := terminal.New(progress, progress)
	o.progress = func(s string) {
		if screen.Live() {
			screen.Status("%s", s)
		} else {
			screen.Line("%s", s)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(stderr, "gauntlet:", err)
		return 1
	}
	began := time.Now()
	res, err := drive(ctx, o, func(role string, args ...string) *exec.Cmd {
		cmd := exec.Command(self, args...)
		cmd.Env = append(os.Environ(), envRole+"="+role)
		return cmd
	})
	screen.Clear()
	res.origin = newOrigin(args, began)
	status := report(res, err, asJSON, stdout, progress)
	if out == "" {
		return status
	}
	f, err := os.Create(out)
	if err == nil {
		err = errors.Join(res.writeJSON(f), f.Close())
	}
	if err != nil {
		fmt.Fprintln(stderr, "gauntlet:", err)
		return 1
	}
	return status
}

// report writes the result and returns the exit status.
func report(res *result, err error, asJSON bool, stdout, progress io.Writer) int {
	status := 0
	if err != nil {
		res.Error = err.Error()
		status = 1
	}
	if asJSON {
		if err := res.writeJSON(stdout); err != nil {
			return 1
		}
	} else if err := res.writeTable(stdout); err != nil {
		return 1
	}
	for _, m := range res.Modes {
		for _, f := range m.Findings {
			fmt.Fprintf(progress, "%v: %s\n", m.Mode, f)
		}
		if m.Account != "" {
			fmt.Fprintf(progress, "%v: logs, goroutines and sockets are in %s\n", m.Mode, m.Account)
		}
	}
	if err != nil {
		fmt.Fprintf(progress, "FAILED with seed %d: %v\n", res.Seed, err)
	}
	fmt.Fprintln(progress, res.line())
	return status
}

// envMounts says that this process has a mount namespace of its own.
const envMounts = "BATON_GAUNTLET_MOUNTS"

// inMounts runs the driver again, in a mount namespace of its own: its small file
// system is invisible to other processes and ends with it.
func inMounts(args []string, seed uint64, stderr io.Writer) int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(stderr, "gauntlet:", err)
		return 1
	}
	cmd := exec.Command(self, append(args, fmt.Sprintf("-seed=%d", seed))...)
	cmd.Env = append(os.Environ(), envMounts+"=own")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	// The other one gets the terminal's signals as well, and those that come by
	// kill(1) are passed on.
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(ch)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(stderr, "gauntlet:", err)
		return 1
	}
	over := make(chan struct{})
	defer close(over)
	go func() { // ends with the other one
		for {
			select {
			case s := <-ch:
				if s == syscall.SIGTERM {
					_ = cmd.Process.Signal(s) // ended is as good
				}
			case <-over:
				return
			}
		}
	}()
	err = cmd.Wait()
	if ee := (*exec.ExitError)(nil); errors.As(err, &ee) {
		return max(ee.ExitCode(), 1)
	}
	if err != nil {
		fmt.Fprintln(stderr, "gauntlet:", err)
		return 1
	}
	return 0
}

// mountState mounts a file system of a few pages.
func mountState() (string, error) {
	dir, err := os.MkdirTemp("", "gauntlet-state")
	if err != nil {
		return "", err
	}
	if err := unix.Mount("gauntlet", dir, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		return "", errors.Join(os.NewSyscallError("mount", err), os.Remove(dir))
	}
	return filepath.Clean(dir), nil
}
