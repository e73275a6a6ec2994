package handoffquic_test

import (
	"os/exec"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffquic/internal/rig"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// load runs a service under load, and fails where the clients have lost something.
func load(t *testing.T, r *rig.Run) *rig.Report {
	t.Helper()
	testenv.Need(t, "reuseport_bpf")
	r.Service.Dir, r.Service.Address, r.Service.Style = testenv.ShortDir(t), "127.0.0.1:0", rig.Baton
	if r.Service.Linger == 0 {
		r.Service.Linger = time.Minute
	}
	r.Command = func(role string) *exec.Cmd { return testmain.Command(t, role) }
	report, err := r.Do(t.Context())
	if err != nil {
		t.Fatalf("%v\n%+v", err, report)
	}
	t.Log(report)
	if report.Lost() > 0 || report.Requests == 0 && r.Clients.Kept > 0 {
		t.Errorf("the clients have lost something: %v\n%q\nlog of the service:\n%s", report, report.Errors, report.Log)
	}
	return report
}

// TestUpgrade replaces a server once, in each mode.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Inherit} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			report := load(t, &rig.Run{
				Service:  rig.Service{Mode: mode, Probation: 50 * time.Millisecond},
				Clients:  rig.Clients{Kept: 6, New: 1, Life: 300 * time.Millisecond},
				Upgrades: 1,
			})
			if report.Connections == 0 {
				t.Error("no connection")
			}
		})
	}
}

// TestManyUpgrades is TestUpgrade with more upgrades, clients that move, Retry, and losses.
func TestManyUpgrades(t *testing.T) {
	testenv.Long(t, "TestUpgrade")
	for name, r := range map[string]rig.Run{
		"takeover": {Service: rig.Service{Mode: handoff.Takeover}, Upgrades: 4},
		"inherit":  {Service: rig.Service{Mode: handoff.Inherit, Retry: true}, Upgrades: 2},
		"losses":   {Service: rig.Service{Mode: handoff.Takeover}, Clients: rig.Clients{Link: rig.Link{Delay: 25 * time.Millisecond, Loss: 0.01}}, Upgrades: 2},
	} {
		t.Run(name, func(t *testing.T) {
			r.Service.Probation = 100 * time.Millisecond
			r.Clients.Kept, r.Clients.New, r.Clients.Life = 12, 1, time.Second
			if report := load(t, &r); report.Migrations == 0 {
				t.Error("no client has moved")
			}
		})
	}
}
