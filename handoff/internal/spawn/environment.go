package spawn

import (
	"bytes"
	"os"
	"slices"
	"strings"
)

// envJournal names the device and the inode of a standard error that leads to systemd's
// journal (systemd.exec(5)). A program that finds them at its descriptor 2 writes for the
// journal.
const envJournal = "JOURNAL_STREAM"

// Environment returns the environment that this process was started with, without the
// variables named: what the program has set itself since, it sets again in its next
// version. Where the kernel does not show it (proc_pid_environ(5): /proc is not mounted,
// or the process has changed its user), it is the environment of now.
func Environment(without ...string) []string {
	env := os.Environ()
	if b, err := os.ReadFile("/proc/self/environ"); err == nil && len(b) > 0 {
		env = nil
		for v := range bytes.SplitSeq(bytes.TrimRight(b, "\x00"), []byte{0}) {
			env = append(env, string(v))
		}
	}
	without = append(without, envConversation)
	return slices.DeleteFunc(env, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(without, name)
	})
}
