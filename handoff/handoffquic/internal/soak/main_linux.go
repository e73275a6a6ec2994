package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffquic/internal/rig"
)

// envRole makes this program the service or the clients.
const envRole = "BATON_SOAK_ROLE"

type options struct {
	upgrades  int
	kept, new int
	modes     string
	control   bool
	link      rig.Link
	user      uint
	retry     bool
	verbose   bool
	bench     bool

	handshakes int64
}

func main() {
	switch os.Getenv(envRole) {
	case "service":
		rig.ServiceMain(nil)
		return
	case "clients":
		rig.ClientsMain(nil)
		return
	}
	var o options
	flag.IntVar(&o.upgrades, "upgrades", 100, "upgrades in each mode")
	flag.IntVar(&o.kept, "kept", 32, "connections with requests under way all the time")
	flag.IntVar(&o.new, "new", 2, "goroutines that make new connections all the time")
	flag.StringVar(&o.modes, "modes", "takeover,inherit", "modes to run in")
	flag.BoolVar(&o.control, "control", true, "run the control, which has to lose, as well")
	flag.DurationVar(&o.link.Delay, "delay", 0, "delay each way")
	flag.Float64Var(&o.link.Loss, "loss", 0, "share of the datagrams that are lost each way")
	flag.UintVar(&o.user, "user", 0, "user ID of the service (as root)")
	flag.BoolVar(&o.retry, "retry", false, "the server validates each address by a Retry packet")
	flag.BoolVar(&o.verbose, "v", false, "print the log of the service")
	flag.BoolVar(&o.bench, "bench", false, "measure, instead: requests per second beside a plain quic-go server, processor time of a successor")
	flag.Int64Var(&o.handshakes, "handshakes", 0, "count, instead, how many of so many new connections come to a predecessor, with connection IDs of the right length and, as a control, of one that clients choose as well")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok := true
	if o.bench {
		if err := measure(ctx); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	if o.handshakes > 0 {
		if !o.handshake(ctx) {
			os.Exit(1)
		}
		return
	}
	for mode := range strings.SplitSeq(o.modes, ",") {
		ok = o.run(ctx, handoff.Mode(mode), false) && ok
	}
	if o.control {
		ok = o.run(ctx, handoff.Takeover, true) && ok
	}
	if !ok {
		os.Exit(1)
	}
}

// run does one run and reports whether it went as it has to.
func (o *options) run(ctx context.Context, mode handoff.Mode, control bool) bool {
	dir, err := os.MkdirTemp("", "flows")
	if err != nil {
		fmt.Println(err)
		return false
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r := rig.Run{
		Service:  rig.Service{Dir: dir, Mode: mode, Style: rig.Baton, Address: "127.0.0.1:0", Retry: o.retry, Probation: 300 * time.Millisecond, Linger: time.Minute, Verbose: o.verbose},
		Clients:  rig.Clients{Kept: o.kept, New: o.new, Life: 2 * time.Second, Link: o.link},
		Upgrades: o.upgrades, Command: command, User: uint32(o.user),
		Between: func(int) error { time.Sleep(300 * time.Millisecond); return nil },
	}
	name := "baton"
	if control {
		name, r.Service.Style, r.Upgrades, r.Service.Linger = "control", rig.Control, min(3, o.upgrades), 3*time.Second
	}
	report, err := r.Do(ctx)
	fmt.Printf("%s, mode %s, %d connections, delay %v, loss %g, user %d\n", name, mode, o.kept, o.link.Delay, o.link.Loss, o.user)
	if err != nil {
		fmt.Println("error:", err)
	}
	if report == nil {
		return false
	}
	if o.verbose || err != nil {
		fmt.Print(report.Log)
	}
	for _, e := range report.Errors[:min(5, len(report.Errors))] {
		fmt.Println("  ", e)
	}
	fmt.Printf("%v took=%v\n", report, report.Took.Round(time.Millisecond))
	return err == nil && (report.Lost() > 0) == control
}

// handshake reports whether only the control has lost something.
func (o *options) handshake(ctx context.Context) bool {
	ok := true
	for _, h := range []rig.Handshakes{{Style: rig.Baton}, {Style: rig.Long}} {
		dir, err := os.MkdirTemp("", "flows")
		if err != nil {
			fmt.Println(err)
			return false
		}
		h.Dir, h.Command, h.Count = dir, command, o.handshakes
		m, err := h.Do(ctx)
		_ = os.RemoveAll(dir)
		fmt.Printf("%s: %v\n", h.Style, m)
		if err != nil || m.First != nil {
			fmt.Println("  ", errors.Join(err, m.First))
		}
		lost := m.Failed+m.Strayed > 0
		ok = ok && err == nil && lost == (h.Style == rig.Long)
	}
	return ok
}

// command runs this program in a role. The kernel kills it when this process ends.
func command(role string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envRole+"="+role)
	return cmd
}

// measure prints figures.
func measure(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "flows")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := rig.Bench{Dir: dir, Mode: handoff.Takeover, Command: command, Rounds: 5, Round: 2 * time.Second, Size: 180 << 20}
	f, err := b.Do(ctx)
	if err == nil {
		fmt.Println(f)
	}
	return err
}
