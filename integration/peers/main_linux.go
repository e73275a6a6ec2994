package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/terminal"
)

// envRole makes this program one of the processes that take part.
const envRole = "BATON_PEERS_ROLE"

func main() {
	if ran, err := takePart(os.Getenv(envRole), os.Args[1:]); ran {
		if err != nil {
			fmt.Fprintln(os.Stderr, "peers:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(driverMain(os.Args[1:], os.Stdout, os.Stderr))
}

// takePart runs the role of a process other than the driver.
func takePart(role string, args []string) (ran bool, err error) {
	switch role {
	case "keeper":
		return true, keeperMain(args)
	case "clients":
		return true, clientMain(args)
	case "server":
		return true, serverMain(args)
	}
	return false, nil
}

// self returns the command that runs a role of this program.
func self(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	if exe, err := os.Executable(); err == nil {
		cmd = exec.Command(exe, args...)
	}
	cmd.Env = append(os.Environ(), envRole+"="+role)
	return cmd
}

// wishes are what the driver is asked for.
type wishes struct {
	options
	peers   []*peer
	links   []time.Duration
	out     string
	picture string
	json    bool
	list    bool
	limit   time.Duration
}

func parse(args []string, stderr io.Writer) (*wishes, error) {
	w := &wishes{}
	var names, rtts string
	fs := flag.NewFlagSet("peers", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&names, "peers", "all", "peers, by `names` or what these begin with, separated by commas (-list has them)")
	fs.IntVar(&w.upgrades, "upgrades", 3, "upgrades of each peer on each network")
	fs.DurationVar(&w.seconds, "seconds", 8*time.Second, "no upgrade begins later than that after the first")
	fs.DurationVar(&w.steady, "steady", 1500*time.Millisecond, "time under load before the first upgrade")
	fs.DurationVar(&w.full, "full", 1500*time.Millisecond, "time under full load, for the requests per second; 0 means none")
	fs.StringVar(&rtts, "links", "0s,50ms", "round trips of the networks: 0s is loopback, others need root")
	fs.StringVar(&w.root, "root", defaultRoot(), "`folder` for servers of Debian "+suite+", or \"none\": those of the machine")
	fs.StringVar(&w.out, "out", "", "`folder` for table, JSON and picture")
	fs.StringVar(&w.picture, "picture", "", "`file` for the picture, instead of picture.svg in -out")
	fs.BoolVar(&w.json, "json", false, "print JSON; the table goes to standard error")
	fs.BoolVar(&w.list, "list", false, "list the peers")
	fs.DurationVar(&w.limit, "limit", 30*time.Minute, "the program's own limit")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag", fs.Arg(0))
	}
	for rtt := range strings.SplitSeq(rtts, ",") {
		d, err := time.ParseDuration(rtt)
		if err != nil || d < 0 {
			return nil, fmt.Errorf("-links: %q is no round trip", rtt)
		}
		w.links = append(w.links, d)
	}
	var err error
	w.peers, err = choose(names)
	if w.upgrades < 1 {
		err = errors.Join(err, errors.New("-upgrades: at least 1"))
	}
	return w, err
}

// choose returns the peers whose names begin as one of the list.
func choose(names string) ([]*peer, error) {
	if names == "all" {
		return peers(), nil
	}
	var chosen []*peer
	for name := range strings.SplitSeq(names, ",") {
		found := false
		for _, p := range peers() {
			if !strings.HasPrefix(p.name, name) || name == "" {
				continue
			}
			found = true
			if !slices.ContainsFunc(chosen, func(c *peer) bool { return c.name == p.name }) {
				chosen = append(chosen, p)
			}
		}
		if !found {
			return nil, fmt.Errorf("-peers: no peer %q; -list has them", name)
		}
	}
	return chosen, nil
}

func defaultRoot() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "baton-peers", suite)
}

// driverMain is the driver. It returns the exit status.
func driverMain(args []string, stdout, stderr io.Writer) int {
	w, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "peers:", err)
		return 2
	}
	if w.list {
		for _, p := range w.peers {
			fmt.Fprintf(stdout, "%-24s %s (%s)\n", p.name, p.what, p.how)
		}
		return 0
	}
	w.command = self
	progress := stdout
	if w.json {
		progress = stderr
	}
	screen := terminal.New(progress, progress)
	w.progress = func(s string) {
		if screen.Live() {
			screen.Status("%s", s)
		} else if strings.Contains(s, "starts") {
			screen.Line("%s", s)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, w.limit, fmt.Errorf("not done within %v", w.limit))
	defer cancel()
	res, err := w.drive(ctx, screen)
	screen.Clear()
	if err != nil {
		fmt.Fprintln(stderr, "peers:", err)
	}
	res.Command = "peers " + strings.Join(args, " ")
	if werr := w.write(res, stdout, progress); werr != nil {
		fmt.Fprintln(stderr, "peers:", werr)
		err = werr
	}
	fmt.Fprintln(progress, res.line())
	if err != nil || res.bad() {
		return 1
	}
	return 0
}

// write writes what was measured.
func (w *wishes) write(res *result, stdout, progress io.Writer) error {
	if w.json {
		if err := res.writeJSON(stdout); err != nil {
			return err
		}
	}
	if err := res.writeTable(progress); err != nil {
		return err
	}
	into := func(name string, write func(io.Writer) error) error {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	picture := w.picture
	if w.out != "" {
		if err := os.MkdirAll(w.out, 0o755); err != nil {
			return err
		}
		if err := errors.Join(into(filepath.Join(w.out, "peers.json"), res.writeJSON), into(filepath.Join(w.out, "peers.md"), res.writeMarkdown), into(filepath.Join(w.out, "peers.txt"), func(f io.Writer) error {
			return errors.Join(res.writeTable(f), func() error { _, err := fmt.Fprintln(f, res.line()); return err }())
		})); err != nil {
			return err
		}
		if picture == "" {
			picture = filepath.Join(w.out, "picture.svg")
		}
	}
	if picture == "" {
		return nil
	}
	return into(picture, res.draw)
}

// bad reports whether a run says something against Baton, or against itself.
func (s *result) bad() bool {
	return slices.ContainsFunc(s.Rows, func(r *row) bool {
		return strings.HasPrefix(r.Peer, baton) && (r.Error != "" || r.Failed > 0)
	})
}

// lab is a [netlab.TB] of a program.
type lab struct{ cleanups []func() }

type labError struct{ error }

func (l *lab) Helper()          {}
func (l *lab) Cleanup(f func()) { l.cleanups = append(l.cleanups, f) }
func (l *lab) Fatalf(format string, args ...any) {
	panic(labError{fmt.Errorf(format, args...)})
}

func (l *lab) end() {
	for _, f := range slices.Backward(l.cleanups) {
		f()
	}
}

// newNetwork returns a network with that round trip.
func (l *lab) newNetwork(rtt time.Duration) (n network, err error) {
	if rtt == 0 {
		return loopback(), nil
	}
	defer func() {
		if e, ok := recover().(labError); ok {
			err = e.error
		}
	}()
	return linked(netlab.NewLink(l, rtt/2)), nil
}

// drive measures all peers on all networks.
func (w *wishes) drive(ctx context.Context, screen *terminal.Screen) (*result, error) {
	began := time.Now()
	res := &result{Date: began.UTC().Format(time.DateOnly), Machine: thisMachine()}
	noRoot := w.prepareRoot(ctx, screen)
	if noRoot != nil {
		screen.Line("%v", noRoot)
	}
	for _, rtt := range w.links {
		var l lab
		on, err := l.newNetwork(rtt)
		if err != nil {
			screen.Line("no network with a round trip of %v: %v", rtt, err)
		}
		for _, p := range w.peers {
			if ctx.Err() != nil {
				l.end()
				return res, context.Cause(ctx)
			}
			var r *row
			switch {
			case err != nil:
				r = &row{Peer: p.name, What: p.what, How: p.how, RTT: rtt.Seconds() * 1000, Error: "not measured: " + err.Error()}
			case p.program != "" && noRoot != nil:
				r = &row{Peer: p.name, What: p.what, How: p.how, RTT: rtt.Seconds() * 1000, Error: "not measured: " + noRoot.Error()}
			default:
				r = w.run(ctx, p, on)
			}
			r.Release = w.release(ctx, p)
			res.Rows = append(res.Rows, r)
			if r.Error != "" {
				screen.Line("%s, %v: %s", p.name, on, r.Error)
			} else {
				screen.Line("%s, %v: %d upgrades, %d requests, %d failed, first answer after %s ms", p.name, on, r.Upgrades, r.Requests, r.Failed, digits(median(r.First)))
			}
		}
		l.end()
	}
	res.Seconds = time.Since(began).Seconds()
	return res, nil
}

// prepareRoot makes the folder with the servers that are not Go's, if one is
// asked for.
func (w *wishes) prepareRoot(ctx context.Context, screen *terminal.Screen) error {
	if w.root == "none" {
		w.root = ""
		return nil
	}
	if !slices.ContainsFunc(w.peers, func(p *peer) bool { return p.program != "" }) {
		return nil
	}
	return makeRoot(ctx, w.root, func(s string) { screen.Line("%s", s) })
}

// release returns the version that a server says it has.
func (w *wishes) release(ctx context.Context, p *peer) string {
	if p.program == "" {
		return ""
	}
	path, err := lookUp(w.root, p.version[0])
	if err != nil {
		return ""
	}
	cmd := exec.CommandContext(ctx, path, p.version[1:]...)
	if w.root != "" {
		cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Chroot: w.root}, "/"
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

func thisMachine() machine {
	m := machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), CPU: "CPU"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return m
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if k, v, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
			m.CPU = strings.TrimSpace(v)
			break
		}
	}
	return m
}
