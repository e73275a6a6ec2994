package sdnotify_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// env is an environment.
type env map[string]string

func (e env) get(name string) string { return e[name] }

func TestListen(t *testing.T) {
	t.Parallel()
	two := []sdnotify.Inherited{{FD: 3, Name: "web"}, {FD: 4}}
	for name, c := range map[string]struct {
		env  env
		want []sdnotify.Inherited
		bad  bool
	}{
		"nothing":        {env{}, nil, false},
		"ours":           {env{"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:"}, two, false},
		"ours, by pidfd": {env{"LISTEN_PID": "7", "LISTEN_PIDFDID": "99", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:"}, two, false},
		"an older one's": {env{"LISTEN_PID": "7", "LISTEN_PIDFDID": "98", "LISTEN_FDS": "2"}, nil, false},
		"another's":      {env{"LISTEN_PID": "8", "LISTEN_FDS": "2"}, nil, false},
		"without names":  {env{"LISTEN_PID": "7", "LISTEN_FDS": "1"}, []sdnotify.Inherited{{FD: 3}}, false},
		"none":           {env{"LISTEN_PID": "7", "LISTEN_FDS": "0"}, []sdnotify.Inherited{}, false},
		"no number":      {env{"LISTEN_PID": "7", "LISTEN_FDS": "x"}, nil, true},
		"negative":       {env{"LISTEN_PID": "7", "LISTEN_FDS": "-1"}, nil, true},
		"very many":      {env{"LISTEN_PID": "7", "LISTEN_FDS": "99999999"}, nil, true},
		"too few names":  {env{"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web"}, nil, true},
		"for no process": {env{"LISTEN_FDS": "2"}, nil, false},
	} {
		got, err := sdnotify.Listen(c.env.get, 7, 99)
		if (err != nil) != c.bad || c.bad && !errors.Is(err, sdnotify.ErrEnvironment) {
			t.Errorf("Listen(%s): %v, want an error: %t", name, err, c.bad)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("Listen(%s) (-want +got):\n%s", name, diff)
		}
	}
}

func TestWatchdogInterval(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env       env
		successor bool
		want      time.Duration
		bad       bool
	}{
		"none":              {env{}, false, 0, false},
		"for all":           {env{"WATCHDOG_USEC": "1500000"}, false, 1500 * time.Millisecond, false},
		"ours":              {env{"WATCHDOG_USEC": "1", "WATCHDOG_PID": "7"}, false, time.Microsecond, false},
		"another's":         {env{"WATCHDOG_USEC": "1", "WATCHDOG_PID": "8"}, false, 0, false},
		"our predecessor's": {env{"WATCHDOG_USEC": "1", "WATCHDOG_PID": "8"}, true, time.Microsecond, false},
		"no number":         {env{"WATCHDOG_USEC": "soon"}, false, 0, true},
		"zero":              {env{"WATCHDOG_USEC": "0"}, false, 0, true},
		"overflow":          {env{"WATCHDOG_USEC": "9223372036854775807"}, false, 0, true},
	} {
		got, err := sdnotify.WatchdogInterval(c.env.get, 7, c.successor)
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("WatchdogInterval(%s) = %v, %v, want %v, an error: %t", name, got, err, c.want, c.bad)
		}
	}
}

// FuzzEnvironment reads what another program may have put into the environment.
func FuzzEnvironment(f *testing.F) {
	f.Add("7", "99", "2", "web:", "1500000", "7")
	f.Add("7", "", "99999999", "", "-1", "")
	f.Add("8", "", "1", "a:b", "9223372036854775807", "x")
	f.Add("7", "98", "", ":", "0", "8")
	f.Fuzz(func(t *testing.T, pid, id, fds, names, usec, watchdogPID string) {
		e := env{
			"LISTEN_PID": pid, "LISTEN_PIDFDID": id, "LISTEN_FDS": fds, "LISTEN_FDNAMES": names,
			"WATCHDOG_USEC": usec, "WATCHDOG_PID": watchdogPID,
		}
		all, err := sdnotify.Listen(e.get, 7, 99)
		if err != nil && (all != nil || !errors.Is(err, sdnotify.ErrEnvironment)) {
			t.Errorf("Listen(%v) = %v, %v", e, all, err)
		}
		if len(all) > 1<<16 {
			t.Fatalf("Listen(%v): %d descriptors", e, len(all))
		}
		for i, in := range all {
			if in.FD != 3+i || strings.Contains(in.Name, ":") {
				t.Errorf("Listen(%v): descriptor %d is %+v", e, i, in)
			}
		}
		for _, successor := range []bool{false, true} {
			d, err := sdnotify.WatchdogInterval(e.get, 7, successor)
			if d < 0 || err != nil && (d != 0 || !errors.Is(err, sdnotify.ErrEnvironment)) {
				t.Errorf("WatchdogInterval(%v, %t) = %v, %v", e, successor, d, err)
			}
		}
	})
}
