package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/internal/terminal"
)

const (
	allSuites   = "bullseye,bookworm,trixie,sid"
	allPackages = "internal/fdx,internal/netlab,handoff/internal/fdpass,handoff/internal/session,reuseport," + gauntletPackage
)

func main() {
	if guest() {
		return
	}
	os.Exit(driverMain(os.Args[1:], os.Stdout, os.Stderr))
}

// options are the driver's.
type options struct {
	suites    []string
	packages  []string
	args      []string // of the test binaries
	cache     string
	fresh     bool // fetch kernels that are cached, too
	artifacts string
	timeout   time.Duration // of one kernel
	memory    int
	screen    *terminal.Screen
}

// driverMain is the driver. It returns the exit status.
func driverMain(args []string, stdout, stderr io.Writer) int {
	var o options
	var suites, packages, pattern, skip string
	var perTest time.Duration
	var asJSON bool
	flags := flag.NewFlagSet("kernels", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&suites, "suites", allSuites, "Debian `suites` whose kernels are booted")
	flags.StringVar(&packages, "packages", allPackages, "`folders` whose tests are run")
	flags.StringVar(&pattern, "run", "", "only tests that match this `pattern`, as in go test")
	flags.StringVar(&skip, "skip", "", "no tests that match this `pattern`, as in go test")
	flags.DurationVar(&o.timeout, "timeout", time.Hour, "time for one kernel")
	flags.DurationVar(&perTest, "test-timeout", 30*time.Minute, "time for the tests of one folder")
	flags.IntVar(&o.memory, "memory", 2048, "`MiB` of a machine")
	flags.BoolVar(&o.fresh, "fresh", false, "download kernels again")
	flags.StringVar(&o.cache, "cache", "", "`folder` that keeps the kernels (default in the user's cache folder)")
	flags.StringVar(&o.artifacts, "artifacts", "", "`folder` for what machines and tests say (default a temporary one)")
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON; progress goes to standard error")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return 2
	}
	o.suites, o.packages = strings.Split(suites, ","), strings.Split(packages, ",")
	o.args = []string{"-test.timeout=" + perTest.String()}
	if pattern != "" {
		o.args = append(o.args, "-test.run="+pattern)
	}
	if skip != "" {
		o.args = append(o.args, "-test.skip="+skip)
	}
	progress := stdout
	if asJSON {
		progress = stderr
	}
	o.screen = terminal.New(progress, progress)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	res, err := drive(ctx, o)
	o.screen.Clear()
	if err != nil {
		fmt.Fprintln(stderr, "kernels:", err)
		return 1
	}
	if asJSON {
		err = res.writeJSON(stdout)
	} else {
		err = res.writeTable(stdout)
	}
	fmt.Fprintln(progress, res.line())
	if err != nil || !res.ok() {
		return 1
	}
	return 0
}

// drive boots each kernel and runs the tests. An error says why nothing could be
// run at all.
func drive(ctx context.Context, o options) (*result, error) {
	if _, err := exec.LookPath(qemu); err != nil {
		return nil, fmt.Errorf("needs QEMU: apt-get install qemu-system-x86: %w", err)
	}
	var err error
	if o.cache == "" {
		if o.cache, err = cacheDir(); err != nil {
			return nil, err
		}
	}
	if o.artifacts == "" {
		if o.artifacts, err = os.MkdirTemp("", "kernels"); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(o.artifacts, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "kernels")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	start := time.Now()
	root, err := repository(ctx)
	if err != nil {
		return nil, err
	}
	o.screen.Line("compiling the tests of %d packages", len(o.packages))
	self := filepath.Join(work, "init")
	if err := buildSelf(ctx, root, self); err != nil {
		return nil, err
	}
	bins, err := build(ctx, root, work, o.packages, o.args)
	if err != nil {
		return nil, err
	}
	res := &result{Kernels: []*kernelResult{}}
	for _, suite := range o.suites {
		k := &kernelResult{Suite: suite, Runs: []*runResult{}}
		res.Kernels = append(res.Kernels, k)
		began := time.Now()
		if err := runKernel(ctx, o, k, work, self, bins); err != nil {
			k.Error = err.Error()
			o.screen.Line("%s: %v", k.name(), err)
		}
		k.Seconds = time.Since(began).Seconds()
		o.screen.Line("%s: %s after %.0f s", k.name(), map[bool]string{true: "ok", false: "FAILED"}[k.ok()], k.Seconds)
		if ctx.Err() != nil {
			break
		}
	}
	res.Seconds = time.Since(start).Seconds()
	return res, nil
}

// runKernel fills in the result of one kernel.
func runKernel(ctx context.Context, o options, res *kernelResult, work, self string, bins binaries) error {
	k, err := cached(o.cache, res.Suite)
	if o.fresh || errors.Is(err, fs.ErrNotExist) {
		o.screen.Line("%s: downloading the kernel", res.Suite)
		k, err = fetch(ctx, o.cache, res.Suite)
	}
	if err != nil {
		return err
	}
	res.Release = k.release()
	m := machine{
		kernel: k, initramfs: filepath.Join(work, res.Suite+".cpio"), cpus: 2, memory: o.memory,
		console: filepath.Join(o.artifacts, res.Suite+".console"),
	}
	defer os.Remove(m.initramfs)
	if res.Absent, err = writeImage(m.initramfs, k, self, bins); err != nil {
		return err
	}
	res.Console, res.Log = m.console, filepath.Join(o.artifacts, res.Suite+".log")
	log, err := os.Create(res.Log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	l := listener{ctx: ctx, res: res, log: log, screen: o.screen}
	err = m.boot(ctx, l.handle)
	l.abandon()
	res.judge()
	return errors.Join(err, log.Close())
}

// listener counts what a machine says.
type listener struct {
	ctx    context.Context
	res    *kernelResult
	log    io.Writer
	screen *terminal.Screen
	run    *runResult
	conv   *converter
	tests  int
}

func (l *listener) handle(e event) (err error) {
	switch e.Kind {
	case eventBoot:
		l.res.Release = e.Text
		l.screen.Line("%s: kernel %s is up", l.res.Suite, e.Text)
	case eventModule:
		l.res.Absent = append(l.res.Absent, e.Text)
	case eventStart:
		l.run = newRunResult(e.Package)
		l.res.Runs = append(l.res.Runs, l.run)
		l.conv, err = newConverter(l.ctx, l.test)
	case eventOutput:
		if _, err = io.WriteString(l.log, e.Text); err == nil {
			_, err = io.WriteString(l.conv.in, e.Text)
		}
	case eventExit:
		err = l.conv.close()
		l.conv = nil
		l.run.end(e.Status, e.Text, e.Seconds)
		l.screen.Line("%s: %s: %d passed, %d failed, %d skipped in %.0f s", l.res.name(), e.Package, l.run.Passed, l.run.Failed, l.run.Skipped, e.Seconds)
	}
	return err
}

// test handles an event of test2json. The converter's goroutine calls it, and has ended
// before another goroutine reads the run.
func (l *listener) test(e testEvent) {
	l.run.note(e)
	if e.Action == "run" {
		l.tests++
		l.screen.Status("%s: %s: %s (%d)", l.res.name(), l.run.Package, e.Test, l.tests)
	}
}

// abandon counts what a machine that has stopped had said.
func (l *listener) abandon() {
	if l.conv == nil {
		return
	}
	_ = l.conv.close() // use the events so far
	l.conv = nil
	l.run.end(-1, "the machine has stopped", 0)
	l.run.over = false
}
