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

// options configure the program.
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

// show runs the service under systemd, upgrades and crashes it under load: with
// sockets that a socket unit holds, then with its own in the descriptor store.
func show(ctx context.Context, o options) (res *result, err error) {
	began := time.Now()
	res = &result{Steps: []step{}, Targets: []targetResult{}, Problems: []string{}}
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
	upgrades, crashes := o.upgrades/2, o.crashes/2
	if err := o.phase(ctx, r, res, holdSocket, plan(o.upgrades-upgrades, o.crashes-crashes)); err != nil {
		return res, err
	}
	return res, o.phase(ctx, r, res, holdStore, plan(upgrades, crashes))
}

// targets are what the clients do.
func (o *options) targets() []load.Target {
	return []load.Target{
		{Name: "new connections", Kind: load.Once, Network: "tcp", Address: lineAddress, Workers: o.workers},
		{Name: "open connections", Kind: load.Keep, Network: "tcp", Address: lineAddress, Workers: o.workers},
		{Name: "HTTP", Kind: load.HTTP, Network: "tcp", Address: webAddress, Workers: o.workers},
		{Name: "HTTP keep-alive", Kind: load.Post, Network: "tcp", Address: webAddress, Workers: o.workers},
	}
}

// begin starts the service and its clients.
func (o *options) begin(ctx context.Context, r *rig, hold string) (*clients, error) {
	set := settings{mode: handoff.Takeover, probation: o.probation, listen: append([]address{
		{proto: protoHTTP, network: "tcp", address: webAddress},
		{proto: protoLines, network: "tcp", address: lineAddress},
	}, restOfSocket()...)}
	units := []string{"app.service"}
	if hold == holdSocket {
		units = append(units, "app.socket")
		if err := r.m.WriteFile("/etc/systemd/system/app.socket.d/more.conf", "[Socket]\nListenStream="+lineAddress+"\n"); err != nil {
			return nil, err
		}
	}
	if err := r.install(ctx, set, units...); err != nil {
		return nil, err
	}
	if err := errors.Join(r.systemctl(ctx, append([]string{"enable"}, units...)...), r.start(ctx, "app.service")); err != nil {
		return nil, err
	}
	return r.startClients(ctx, o.targets()...)
}

// phase does what is planned to a service whose sockets are held in a way.
func (o *options) phase(ctx context.Context, r *rig, res *result, hold string, steps []string) error {
	if len(steps) == 0 {
		return nil
	}
	c, err := o.begin(ctx, r, hold)
	if err != nil {
		return fmt.Errorf("%s: %w", hold, err)
	}
	pid, err := r.mainPID(ctx, "app.service")
	if err != nil {
		return err
	}
	o.line("%s: app.service is active, its main process is %d, clients are connected", hold, pid)
	j := newJudge(o.targets())
	crashes := 0
	for _, kind := range steps {
		n := len(res.Steps) + 1
		o.status("%d of %d: %s: %s", n, o.upgrades+o.crashes, kind, progress(c.latest()))
		do, what := r.upgrade, "is upgraded in %8.1f ms       "
		if kind == stepCrash {
			do, what = r.crash, "is killed; answers %8.1f ms later"
		}
		s, err := do(ctx, "app.service", c, fmt.Sprintf("v%d", n+1))
		if err != nil {
			return fmt.Errorf("%s: %s: %w\n%s", hold, kind, err, r.journal(context.WithoutCancel(ctx), "app.service"))
		}
		s.Hold = hold
		res.Steps = append(res.Steps, s)
		if kind == stepUpgrade {
			res.Upgrades++
		} else {
			res.Crashes++
			crashes++
			if err := j.killed(r.m.Path(ledgerDir), s.From); err != nil {
				return err
			}
		}
		o.line("%2d  main process %6d -> %6d  "+what+"  %s", n, s.From, s.To, s.Seconds*1000, progress(c.latest()))
	}
	o.status("stopping ...")
	stats, failures, err := c.stop(ctx)
	if err != nil {
		return err
	}
	res.count(hold, stats, failures, j)
	return r.check(ctx, res, hold, crashes)
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

// check looks at what systemd makes of it, and stops the service.
func (r *rig) check(ctx context.Context, res *result, hold string, crashes int) error {
	values, err := r.show(ctx, "app.service", "ActiveState", "NRestarts", "MainPID", "NFileDescriptorStore")
	if err != nil {
		return err
	}
	if want := fmt.Sprint(crashes); values["NRestarts"] != want {
		res.problem("%s: systemd has restarted the service %s times, want %s", hold, values["NRestarts"], want)
	}
	if want := fmt.Sprint(res.Steps[len(res.Steps)-1].To); values["ActiveState"] != "active" || values["MainPID"] != want {
		res.problem("%s: in the end the service is %s with main process %s, want active with %s", hold, values["ActiveState"], values["MainPID"], want)
	}
	if stored := values["NFileDescriptorStore"] != "0"; stored != (hold == holdStore) {
		res.problem("%s: the store has %s descriptors", hold, values["NFileDescriptorStore"])
	}
	units := []string{"app.service"}
	if hold == holdSocket {
		units = append(units, "app.socket")
		if err := r.systemctl(ctx, "disable", "app.socket"); err != nil {
			return err
		}
	}
	return r.systemctl(ctx, append([]string{"stop"}, units...)...)
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

// crash kills the main process of a unit that has no other process, and waits until the
// next one has answered.
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
