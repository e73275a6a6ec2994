package spawn

import (
	"os"
	"slices"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// Given returns the descriptors that every process of this line is given, such as a lock
// of flock(1), and takes them out of the environment. Where a predecessor has started this process it makes all others close-on-exec: what was open
// by mistake when that has forked does not reach the next one. A predecessor of an older
// version names none, and has passed on what it had.
func Given(spawned bool) fdx.Given {
	text, named := os.LookupEnv(fdx.EnvGiven)
	_ = os.Unsetenv(fdx.EnvGiven) // never fails for a name without "="
	if !spawned || !named {
		return fdx.InheritedNow()
	}
	given := fdx.ParseGiven(text)
	given.Keep()
	return given
}

// conversationAt returns the number that the conversation gets in a successor: the first
// that is not given.
func conversationAt(given []int) int {
	fd := 3
	for slices.Contains(given, fd) {
		fd++
	}
	return fd
}
