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
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/internal/terminal"
)

// The variables that make this program another than the driver.
const (
	envInside  = "BATON_CONTAINERS_INSIDE"  // it is in a mount namespace of its own
	envRuntime = "BATON_CONTAINERS_RUNTIME" // it starts this program, crun
)

// statusNoContainers is the exit status on a machine where podman can't run containers.
const statusNoContainers = 3

func main() {
	if crun := os.Getenv(envRuntime); crun != "" {
		fmt.Fprintln(os.Stderr, runtimeMain(crun, os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(driverMain(os.Getenv(envInside) != "", os.Args[1:], os.Stdout, os.Stderr))
}

type options struct {
	upgrades int
	only     string
	bin      string // folder of the programs of the image
	docs     string // the page whose pods are played
	dir      string
	line     func(format string, args ...any)
	status   func(format string, args ...any)
}

// driverMain is the driver. It runs itself again in a mount namespace. It returns the
// exit status.
func driverMain(inside bool, args []string, stdout, stderr io.Writer) int {
	var o options
	var timeout time.Duration
	var asJSON bool
	fs := flag.NewFlagSet("containers", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.upgrades, "upgrades", 3, "upgrades in each row")
	fs.StringVar(&o.only, "only", "", "`part` of the names of the rows that are shown")
	fs.StringVar(&o.bin, "bin", "bin", "`folder` of the programs baton and baton-demo, linked statically")
	fs.StringVar(&o.docs, "docs", "docs/containers.md", "`page` of the documentation whose pods are played")
	fs.DurationVar(&timeout, "timeout", 15*time.Minute, "the program's own limit")
	fs.BoolVar(&asJSON, "json", false, "print the result as JSON; progress goes to standard error")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil || fs.NArg() > 0 || o.upgrades < 1 {
		fmt.Fprintln(stderr, "containers: no arguments; -upgrades must be positive")
		return 2
	}
	for _, tool := range []string{"podman", "crun", "catatonit"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(stderr, "containers: %v: install podman, crun and catatonit\n", err)
			return statusNoContainers
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if !inside {
		return enter(ctx, args, stdout, stderr)
	}
	progress := stdout
	if asJSON {
		progress = stderr
	}
	screen := terminal.New(progress, progress)
	o.status, o.line = screen.Status, screen.Line
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done within %v", timeout))
	defer cancel()
	res, err := show(ctx, o)
	screen.Clear()
	return report(res, err, asJSON, stdout, progress)
}

// enter runs this program in a mount namespace and a PID namespace of its own: every
// process that it leaves ends with it.
func enter(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(stderr, "containers:", err)
		return 1
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute // it ends its containers
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(stderr, "containers: namespaces of its own need root:", err)
		return statusNoContainers
	}
	return 0
}

// report writes the result and returns the exit status.
func report(res *result, err error, asJSON bool, stdout, progress io.Writer) int {
	if err != nil {
		fmt.Fprintln(progress, "containers:", err)
		if errors.Is(err, errNoContainers) {
			return statusNoContainers
		}
		return 1
	}
	if asJSON {
		err = res.writeJSON(stdout)
	} else {
		err = res.writeTable(stdout)
	}
	fmt.Fprintln(progress, res.line())
	if err != nil || !res.good() {
		return 1
	}
	return 0
}
