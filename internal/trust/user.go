package trust

import (
	"errors"
	"os"
	"strconv"
	"strings"
)

// User reports whether uid, as the kernel names it to this process, is root's or this
// process's own. The overflow uid proves nothing: in a user namespace it stands for each
// user that the namespace does not map (user_namespaces(7)).
func User(uid int) bool {
	return (uid == 0 || uid == os.Geteuid()) && (uid != overflow() || mapsAll())
}

// overflow returns the overflow uid (proc_sys_kernel(5)).
func overflow() int {
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err == nil {
		if uid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return uid
		}
	}
	return 65534
}

// mapsAll reports whether the user namespace maps each uid, as the first one does.
func mapsAll() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	if errors.Is(err, os.ErrNotExist) { // a kernel without user namespaces, or no proc(5)
		_, err = os.Stat("/proc/self")
		return err == nil
	}
	fields := strings.Fields(string(text))
	return err == nil && len(fields) == 3 && fields[2] == "4294967295"
}

// mapsRoot reports whether the user namespace maps uid 0.
func mapsRoot() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "0" {
			return true
		}
	}
	return false
}
