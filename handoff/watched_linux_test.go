package handoff_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestWatched upgrades a service whose end is that of PID 1, its starter: it refuses, and
// so it does with a successor in the same PID namespace.
func TestWatched(t *testing.T) {
	testenv.Need(t, "unshare_pid")
	for _, init := range [][]string{{"sh", "-c", `"$@"; exit`, "sh"}, {"tini", "--"}, {"dumb-init"}, {"catatonit", "--"}, {"tini", "--", "sh", "-c", `"$@"; exit`, "sh"}} {
		t.Run(strings.Join(init[:min(3, len(init))], " "), func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(init[0]); err != nil {
				t.Skip(err)
			}
			s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}})
			cmd := s.varied(variation{})
			unshare, err := exec.LookPath("unshare")
			if err != nil {
				t.Fatal(err)
			}
			cmd.Args = slices.Concat([]string{"unshare", "--fork", "--pid", "--mount-proc", "--kill-child"}, init, []string{cmd.Path}, cmd.Args[1:])
			cmd.Path = unshare
			s.startCommand(cmd)
			addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
			c, err := control.New(&control.Config{Socket: filepath.Join(s.set.Dir, "ctl", "s")})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Upgrade(t.Context(), nil); !errors.Is(err, handoff.ErrUnsupported) || !strings.Contains(err.Error(), "PID 1") {
				t.Errorf("Upgrade() = %v, want ErrUnsupported", err)
			}
			st, err := c.Status(t.Context())
			if err != nil || !strings.Contains(st.NoUpgrade, "PID 1") {
				t.Errorf("Status() = %+v, %v, want it to say that no upgrade can begin", st, err)
			}
			mustAnswer(t, addr, 1)
			if _, err := c.Drain(t.Context(), &control.DrainConfig{}); err != nil {
				t.Error(err)
			}
			s.wait("exit")
		})
	}
}
