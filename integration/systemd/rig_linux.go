package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/integration/internal/machine"
)

// appName is the NAME of the unit files.
const appName = "app"

// command returns the command that runs a role of this program. The last entry of
// its environment says which.
type command func(role string, args ...string) *exec.Cmd

// rigConfig says what a rig is made of.
type rigConfig struct {
	command command
	baton   string // the program, linked statically
	units   string // the folder of the unit files
	root    string // of another system; empty: this one
}

// A rig is a machine with the unit files, the service's program and the command
// baton, as a user would have installed them.
type rig struct {
	rigConfig
	m       *machine.Machine
	clients []*clients
}

func newRig(ctx context.Context, c rigConfig) (_ *rig, err error) {
	m, err := machine.Boot(ctx, machine.Config{
		Command: func(args ...string) *exec.Cmd { return c.command("init", args...) }, Root: c.root,
	})
	if err != nil {
		return nil, err
	}
	r := &rig{rigConfig: c, m: m}
	self, err := os.Executable()
	if err == nil {
		err = errors.Join(m.Install(self, appName), m.Install(c.baton, "baton"), r.version("v1"))
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// close ends everything.
func (r *rig) close() error {
	for _, c := range r.clients {
		_ = c.stdin.Close() // which they may have seen before
	}
	err := r.m.Close()
	for _, c := range r.clients {
		<-c.done
	}
	return err
}

// role returns the entry of the environment that makes this program play a role.
func (r *rig) role(role string) string {
	env := r.command(role).Env
	return env[len(env)-1]
}

// version says which version the program is that starts next.
func (r *rig) version(v string) error { return r.m.WriteFile(versionPath, v+"\n") }

// plan says what the program does that starts next.
func (r *rig) plan(p string) error { return r.m.WriteFile(planPath, p+"\n") }

// settings configure the service.
type settings struct {
	mode      handoff.Mode
	listen    []address
	probation time.Duration
	linger    time.Duration
	extra     []string // more lines of a drop-in, of any section
}

// install copies unit files, as they are, and tells the service what to do by a
// drop-in. The first is the service.
func (r *rig) install(ctx context.Context, s settings, units ...string) error {
	for _, unit := range units {
		text, err := os.ReadFile(filepath.Join(r.units, unit))
		if err != nil {
			return err
		}
		if err := r.m.WriteFile("/etc/systemd/system/"+unit, string(text)); err != nil {
			return err
		}
	}
	var listen []string
	for _, a := range s.listen {
		listen = append(listen, a.String())
	}
	env := []string{r.role("service"), envMode + "=" + string(s.mode), envListen + "=" + strings.Join(listen, " ")}
	if !strings.Contains(units[0], "@") {
		env = append(env, envName+"="+strings.TrimSuffix(units[0], ".service"))
	}
	for name, d := range map[string]time.Duration{envProbation: s.probation, envLinger: s.linger} {
		if d != 0 {
			env = append(env, name+"="+d.String())
		}
	}
	lines := []string{"[Service]"}
	for _, e := range env {
		lines = append(lines, "Environment="+strconv.Quote(e))
	}
	lines = append(lines, s.extra...)
	if err := r.m.WriteFile("/etc/systemd/system/"+units[0]+".d/rig.conf", strings.Join(lines, "\n")+"\n"); err != nil {
		return err
	}
	return r.systemctl(ctx, "daemon-reload")
}

// systemctl runs systemctl in the machine.
func (r *rig) systemctl(ctx context.Context, args ...string) error {
	_, err := r.m.Output(ctx, "systemctl", args...)
	return err
}

// start starts units. An error has the journal of the first.
func (r *rig) start(ctx context.Context, units ...string) error {
	err := r.systemctl(ctx, append([]string{"start"}, units...)...)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, r.journal(context.WithoutCancel(ctx), units[0]))
	}
	return err
}

// show returns properties of a unit.
func (r *rig) show(ctx context.Context, unit string, names ...string) (map[string]string, error) {
	out, err := r.m.Output(ctx, "systemctl", "show", unit, "--property="+strings.Join(names, ","))
	if err != nil {
		return nil, err
	}
	values := make(map[string]string)
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		values[name] = value
	}
	return values, nil
}

// number returns a property that is a number.
func (r *rig) number(ctx context.Context, unit, name string) (int, error) {
	values, err := r.show(ctx, unit, name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(values[name])
}

// mainPID returns the process ID, in the machine, of a unit's main process.
func (r *rig) mainPID(ctx context.Context, unit string) (int, error) {
	pid, err := r.number(ctx, unit, "MainPID")
	if err == nil && pid == 0 {
		err = fmt.Errorf("%s has no main process", unit)
	}
	return pid, err
}

// alive reports whether a process of the machine has not ended.
func (r *rig) alive(pid int) bool {
	stat, err := os.ReadFile(r.m.Path(fmt.Sprintf("/proc/%d/stat", pid)))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// processes returns those of a unit.
func (r *rig) processes(ctx context.Context, unit string) ([]string, error) {
	values, err := r.show(ctx, unit, "ControlGroup")
	if err != nil {
		return nil, err
	}
	out, err := r.m.Output(ctx, "cat", "/sys/fs/cgroup"+values["ControlGroup"]+"/cgroup.procs")
	return strings.Fields(out), err
}

// journal returns what the journal has of a unit.
func (r *rig) journal(ctx context.Context, unit string) string {
	// What was written before is in it.
	_, _ = r.m.Output(ctx, "journalctl", "--sync") // the text is for people
	out, err := r.m.Output(ctx, "journalctl", "--no-pager", "-o", "short-precise", "-u", unit)
	if err != nil {
		return err.Error()
	}
	return out
}

// pollEvery is how often until asks.
const pollEvery = 10 * time.Millisecond

// until asks until ok says so, for what no event tells of.
func until(ctx context.Context, what string, ok func() (bool, error)) error {
	for {
		done, err := ok()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		case <-time.After(pollEvery):
		}
	}
}
