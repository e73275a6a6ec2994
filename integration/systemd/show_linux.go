package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/load"
)

// options are what the program is told.
type options struct {
	rigConfig
	upgrades, crashes int
	workers           int
	probation         time.Duration
	status            func(format string, args ...any) // of the moment
	line              func(format string, args ...any) // that stays
}

// The addresses of the service in the machine, of which app.socket has the first.
const (
	webAddress  = "127.0.0.1:8080"
	lineAddress = "127.0.0.1:8081"
)

// restOfSocket are the other sockets of app.socket.
func restOfSocket() []address {
	return []address{
		{proto: protoPackets, network: "udp", address: webAddress},
		{proto: protoLines, network: "unix", address: "/run/app.sock"},
	}
}

// show runs the service under systemd, upgrades and crashes it under load.
func show(ctx context.Context, o options) (res *result, err error) {
	began := time.Now()
	res = &result{Steps: []step{}, Problems: []string{}}
	defer func() { res.Seconds = time.Since(began).Seconds() }()
	o.status("booting systemd ...")
	r, err := newRig(ctx, o.rigConfig)
	if err != nil {
		return res, err
	}
	defer func() {
		if e := r.close(); err == nil {
			err = e
		}
	}()
	res.Systemd = r.m.Version
	o.line("systemd %d booted in %s, as PID 1 of namespaces of its own", r.m.Version, millis(time.Since(began)))

	set := settings{mode: handoff.Takeover, probation: o.probation, listen: append([]address{
		{proto: protoHTTP, network: "tcp", address: webAddress},
		{proto: protoLines, network: "tcp", address: lineAddress},
	}, restOfSocket()...)}
	if err := r.m.WriteFile("/etc/systemd/system/app.socket.d/more.conf", "[Socket]\nListenStream="+lineAddress+"\n"); err != nil {
		return res, err
	}
	if err := r.install(ctx, set, "app.service", "app.socket"); err != nil {
		return res, err
	}
	if err := errors.Join(r.systemctl(ctx, "enable", "app.service", "app.socket"), r.start(ctx, "app.service")); err != nil {
		return res, err
	}
	targets := []load.Target{
		{Name: "new connections", Kind: load.Once, Network: "tcp", Address: lineAddress, Workers: o.workers},
		{Name: "open connections", Kind: load.Keep, Network: "tcp", Address: lineAddress, Workers: o.workers},
		{Name: "HTTP", Kind: load.HTTP, Network: "tcp", Address: webAddress, Workers: o.workers},
		{Name: "HTTP keep-alive", Kind: load.Post, Network: "tcp", Address: webAddress, Workers: o.workers},
	}
	c, err := r.startClients(ctx, targets...)
	if err != nil {
		return res, err
	}
	pid, err := r.mainPID(ctx, "app.service")
	if err != nil {
		return res, err
	}
	o.line("app.service is active, its main process is %d; app.socket holds its sockets; clients are connected", pid)

	j := &judge{addresses: make(map[string]string)}
	listeners := make(map[string]bool)
	for _, t := range targets {
		j.addresses[t.Name] = t.Address
		listeners[t.Address] = true
	}
	var killed []int
	for i, kind := range plan(o.upgrades, o.crashes) {
		o.status("%d of %d: %s: %s", i+1, o.upgrades+o.crashes, kind, progress(c.latest()))
		var s step
		if kind == stepUpgrade {
			s, err = r.upgrade(ctx, "app.service", c, fmt.Sprintf("v%d", i+2))
		} else {
			s, err = r.crash(ctx, "app.service", c, fmt.Sprintf("v%d", i+2))
		}
		if err != nil {
			return res, fmt.Errorf("%s: %w\n%s", kind, err, r.journal(context.WithoutCancel(ctx), "app.service"))
		}
		res.Steps = append(res.Steps, s)
		what := fmt.Sprintf("is upgraded in %8.1f ms", s.Seconds*1000)
		if kind == stepUpgrade {
			res.Upgrades++
		} else {
			res.Crashes++
			killed = append(killed, s.From)
			what = fmt.Sprintf("is killed; answers %8.1f ms later", s.Seconds*1000)
		}
		o.line("%2d  main process %6d -> %6d  %s  %s", i+1, s.From, s.To, what, progress(c.latest()))
	}
	o.status("stopping ...")
	stats, failures, err := c.stop(ctx)
	if err != nil {
		return res, err
	}
	for _, pid := range killed {
		open, err := readLedger(r.m.Path(ledgerDir), pid)
		if err != nil {
			return res, err
		}
		j.open = append(j.open, open)
	}
	j.hands = len(killed) * len(listeners)
	res.count(stats, failures, j)
	return res, r.check(ctx, res)
}

// progress says what the clients have counted.
func progress(s load.Stats) string {
	return fmt.Sprintf("%7d requests, %d ended early", s.Questions+s.Failed, s.Failed)
}

// plan spreads crashes over upgrades, the last one comes last.
func plan(upgrades, crashes int) []string {
	var steps []string
	for i := range crashes {
		n := upgrades*(i+1)/crashes - upgrades*i/crashes
		steps = append(append(steps, slices.Repeat([]string{stepUpgrade}, n)...), stepCrash)
	}
	if crashes == 0 {
		steps = slices.Repeat([]string{stepUpgrade}, upgrades)
	}
	return steps
}

// check looks at what systemd makes of it.
func (r *rig) check(ctx context.Context, res *result) error {
	values, err := r.show(ctx, "app.service", "ActiveState", "NRestarts", "MainPID")
	if err != nil {
		return err
	}
	if want := fmt.Sprint(res.Crashes); values["NRestarts"] != want {
		res.problem("systemd has restarted the service %s times, want %s", values["NRestarts"], want)
	}
	if n := len(res.Steps); values["ActiveState"] != "active" || n > 0 && values["MainPID"] != fmt.Sprint(res.Steps[n-1].To) {
		res.problem("in the end the service is %s with main process %s", values["ActiveState"], values["MainPID"])
	}
	return r.systemctl(ctx, "stop", "app.service", "app.socket")
}

// upgrade upgrades a unit to a version by systemctl reload, and waits until that
// has answered.
func (r *rig) upgrade(ctx context.Context, unit string, c *clients, version string) (s step, err error) {
	s.Kind = stepUpgrade
	if s.From, err = r.mainPID(ctx, unit); err != nil {
		return s, err
	}
	if err := r.version(version); err != nil {
		return s, err
	}
	began := time.Now()
	if err := r.systemctl(ctx, "reload", unit); err != nil {
		return s, err
	}
	s.Seconds = time.Since(began).Seconds()
	// systemd knows it by now: that is what its main process waited for.
	if s.To, err = r.mainPID(ctx, unit); err != nil {
		return s, err
	}
	if s.To == s.From {
		return s, fmt.Errorf("systemctl reload has succeeded, and the main process is still %d", s.From)
	}
	return s, c.answeredBy(ctx, version)
}

// crash kills the main process of a unit, which nobody helps to serve, and waits
// until its next one has answered.
func (r *rig) crash(ctx context.Context, unit string, c *clients, version string) (s step, err error) {
	s.Kind = stepCrash
	err = until(ctx, "end of the predecessors", func() (bool, error) {
		pids, err := r.processes(ctx, unit)
		return len(pids) == 1, err
	})
	if err != nil {
		return s, err
	}
	if s.From, err = r.mainPID(ctx, unit); err != nil {
		return s, err
	}
	if err := r.version(version); err != nil {
		return s, err
	}
	began := time.Now()
	if err := r.systemctl(ctx, "kill", "--kill-who=main", "--signal=KILL", unit); err != nil {
		return s, err
	}
	if err := c.answeredBy(ctx, version); err != nil {
		return s, err
	}
	s.Seconds = time.Since(began).Seconds()
	return s, until(ctx, "systemd's restart", func() (bool, error) {
		values, err := r.show(ctx, unit, "ActiveState", "MainPID")
		if err != nil {
			return false, err
		}
		_, err = fmt.Sscan(values["MainPID"], &s.To)
		return s.To != s.From && s.To != 0 && values["ActiveState"] == "active", err
	})
}
