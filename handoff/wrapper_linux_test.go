package handoff_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/procs"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestWrapper has a shell script start the successor, and stay.
func TestWrapper(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := testenv.Script(t, fmt.Sprintf("'%s' \"$@\"\nexit $?\n", exe))
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}})
	s.startCommand(s.varied(variation{Executable: script}))
	s.wait("owner")
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	l := newLoad(t, s.set.Dir, map[string]string{"0 tcp": addr})
	for range 2 {
		m := s.upgrade()
		s.wait("exit")
		if m.Report.Successor.PID != s.pid() {
			t.Errorf("the report's successor is %d, want %d", m.Report.Successor.PID, s.pid())
		}
		l.run(10)
	}
	// One that fails is gone, although the process that was started is the shell.
	s.plan(plan{At: "listening", How: "exit1"})
	s.mustFail("a planned exit")
	l.run(10)
	l.stop()
	s.stop()
}

// TestWrapperHangs has a shell script start a successor that hangs: before its New, and
// when it is ready, in the process group of the script and in another. The predecessor
// serves, and no process is left.
func TestWrapperHangs(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for row, c := range []struct {
			name, script string
			at           plan
		}{
			{"before New", "'%s' \"$@\"", plan{At: "start", How: "hang"}},
			{"ready", "'%s' \"$@\"", plan{At: "probation", How: "stop"}},
			{"ready, in another group", "setsid -w '%s' \"$@\"", plan{At: "probation", How: "stop"}},
		} {
			t.Run(c.name, func(t *testing.T) {
				if !turn(row, mode) {
					testenv.Long(t, "TestWrapperHangs")
				}
				t.Parallel()
				i := install(t, mode)
				i.set.Probation, i.set.Hang = time.Minute, soon
				if c.at.At == "start" {
					i.set.Ready = soon
				}
				program := filepath.Join(i.bin, "program")
				copyBinary(t, program)
				i.run(variation{}, "", i.app)
				addr := i.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
				if err := os.Rename(testenv.Script(t, fmt.Sprintf(c.script+"\nexit $?\n", program)), i.app); err != nil {
					t.Fatal(err)
				}
				i.plan(c.at)
				i.mustFail("timed out")
				eventually(t, "one process is left", func() bool { return len(procs.Marked(i.mark())) == 1 })
				mustAnswer(t, addr, 1)
				i.stop()
			})
		}
	})
}

// TestWrapperEnds has a shell script start the successor in the background, and end. The
// upgrade fails at once, says what the script has to do, and the process is gone.
func TestWrapperEnds(t *testing.T) {
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Drain} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			i := install(t, mode)
			program := filepath.Join(i.bin, "program")
			copyBinary(t, program)
			i.run(variation{}, "", i.app)
			addr := i.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
			if err := os.Rename(testenv.Script(t, fmt.Sprintf("'%s' \"$@\" &\nexit 0\n", program)), i.app); err != nil {
				t.Fatal(err)
			}
			i.plan(plan{At: "start", How: "hang"})
			i.mustFail("exit status 0, and New was not called: a script that starts the program must exec it, or wait for it")
			eventually(t, "one process is left", func() bool { return len(procs.Marked(i.mark())) == 1 })
			mustAnswer(t, addr, 1)
			i.stop()
		})
	}
}
