package spawn

import (
	"bytes"
	"os"
	"slices"
	"strings"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// envJournal names the device and the inode of a standard error that leads to systemd's
// journal (systemd.exec(5)). A program that finds them at its descriptor 2 writes for the
// journal.
const envJournal = "JOURNAL_STREAM"

// Environment returns the environment that this process was started with, without the
// variables named: what the program has set itself since, it sets again in its next
// version. Where the kernel does not show it (proc_pid_environ(5): /proc is not mounted,
// the process has changed its user, or writes its title there), it is the environment of
// now.
func Environment(without ...string) []string {
	b, err := os.ReadFile("/proc/self/environ")
	env, ok := started(b)
	if err != nil || !ok {
		env = os.Environ()
	}
	without = append(without, envConversation, fdx.EnvGiven)
	return slices.DeleteFunc(env, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(without, name)
	})
}

// started parses what the kernel shows of the environment. It reports false where that is
// none: each variable has a name and a value.
func started(b []byte) (env []string, ok bool) {
	for v := range bytes.SplitSeq(bytes.TrimRight(b, "\x00"), []byte{0}) {
		if bytes.IndexByte(v, '=') < 1 {
			return nil, false
		}
		env = append(env, string(v))
	}
	_, path := os.LookupEnv("PATH")
	ok = !path || slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "PATH=") })
	return env, ok
}
