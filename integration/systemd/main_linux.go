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

	"github.com/seed-11c92bf9/baton/integration/internal/machine"
	"github.com/seed-11c92bf9/baton/internal/terminal"
)

// envRole makes this program one of the processes that take part.
const envRole = "BATON_SYSTEMD_ROLE"

func main() {
	if ran, err := takePart(os.Getenv(envRole), os.Args[1:]); ran {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(driverMain(os.Args[1:], os.Stdout, os.Stderr))
}

// takePart runs the role of a process other than the driver.
func takePart(role string, args []string) (ran bool, err error) {
	switch role {
	case "init":
		return true, machine.Init(args)
	case "service":
		return true, serviceMain()
	case "clients":
		return true, clientsMain(args)
	}
	return false, nil
}

// driverMain is the driver. It returns the exit status.
func driverMain(args []string, stdout, stderr io.Writer) int {
	var o options
	var timeout time.Duration
	var asJSON bool
	fs := flag.NewFlagSet("systemd", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.upgrades, "upgrades", 20, "upgrades through systemctl reload")
	fs.IntVar(&o.crashes, "crashes", 5, "crashes by SIGKILL")
	fs.IntVar(&o.workers, "workers", 4, "clients of each kind")
	fs.DurationVar(&o.probation, "probation", 300*time.Millisecond, "time in which an upgrade could be taken back")
	fs.DurationVar(&timeout, "timeout", 10*time.Minute, "the program's own limit")
	fs.StringVar(&o.baton, "baton", "bin/baton", "`path` of the command baton, linked statically")
	fs.StringVar(&o.units, "units", "cmd/baton/systemd", "`folder` of the unit files")
	fs.BoolVar(&asJSON, "json", false, "print the result as JSON; progress goes to standard error")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if fs.NArg() > 0 || o.upgrades < 0 || o.crashes < 0 || o.upgrades+o.crashes == 0 || o.workers < 1 {
		fmt.Fprintln(stderr, "systemd: no arguments; -upgrades and -crashes must not be negative, and one of them, and -workers, must be more than 0")
		return 2
	}
	if err := machine.Supported(); err != nil {
		fmt.Fprintln(stderr, "systemd: can't boot one here:", err)
		return 1
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(stderr, "systemd:", err)
		return 1
	}
	o.command = func(role string, args ...string) *exec.Cmd {
		cmd := exec.Command(self, args...)
		cmd.Env = append(os.Environ(), envRole+"="+role)
		return cmd
	}
	progress := stdout
	if asJSON {
		progress = stderr
	}
	screen := terminal.New(progress, progress)
	o.status, o.line = screen.Status, screen.Line
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done within %v", timeout))
	defer cancel()
	res, err := show(ctx, o)
	screen.Clear()
	return report(res, err, asJSON, stdout, progress)
}

// report writes the result and returns the exit status.
func report(res *result, err error, asJSON bool, stdout, progress io.Writer) int {
	if err != nil {
		res.problem("%v", err)
	}
	var werr error
	if asJSON {
		werr = res.writeJSON(stdout)
	} else {
		fmt.Fprintln(progress)
		werr = res.writeTable(stdout)
	}
	fmt.Fprintln(progress)
	for _, p := range res.Problems {
		fmt.Fprintln(progress, "PROBLEM", p)
	}
	fmt.Fprintln(progress, res.line())
	if werr != nil || len(res.Problems) > 0 || res.Failed+res.Refused > 0 {
		return 1
	}
	return 0
}
