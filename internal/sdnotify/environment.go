package sdnotify

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The variables of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3).
const (
	EnvSocket = "NOTIFY_SOCKET"

	envWatchdog    = "WATCHDOG_USEC"
	envWatchdogPID = "WATCHDOG_PID"

	EnvListenPID     = "LISTEN_PID"
	EnvListenPIDFDID = "LISTEN_PIDFDID"
	EnvListenFDs     = "LISTEN_FDS"
	EnvListenNames   = "LISTEN_FDNAMES"

	envStore = "FDSTORE"
)

// firstFD is the first descriptor that is passed on (SD_LISTEN_FDS_START).
const firstFD = 3

// maxFDs bounds what LISTEN_FDS may say.
const maxFDs = 1 << 16

// ErrEnvironment says that a variable does not hold what systemd puts there.
var ErrEnvironment = errors.New("environment")

// WatchdogInterval returns the longest time between two messages of the main process
// that systemd allows; 0 if it wants none. A successor of the process that systemd
// started has that one's duty: then successor is true, and WATCHDOG_PID does not
// matter.
func WatchdogInterval(getenv func(string) string, pid int, successor bool) (time.Duration, error) {
	text := getenv(envWatchdog)
	if text == "" {
		return 0, nil
	}
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 0 || usec > int64(time.Duration(1<<63-1)/time.Microsecond) {
		return 0, fmt.Errorf("%w: %s=%q is no time in microseconds", ErrEnvironment, envWatchdog, text)
	}
	if p := getenv(envWatchdogPID); p != "" && p != strconv.Itoa(pid) && !successor {
		return 0, nil // it is meant for another process
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// StoreSize returns how many descriptors systemd keeps for the service (FDSTORE,
// systemd 254): FileDescriptorStoreMax= of the unit, 0 if it keeps none, or does
// not say so.
func StoreSize(getenv func(string) string) (int, error) {
	text := getenv(envStore)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%w: %s=%q is no number of descriptors", ErrEnvironment, envStore, text)
	}
	return int(n), nil
}

// An Inherited is a descriptor that systemd has passed on.
type Inherited struct {
	FD   int
	Name string // FileDescriptorName= of the socket unit, or of the store; "" if it has none
}

// Listen returns the descriptors that are meant for the process pid, whose pidfd
// has the inode pidfdID (0 if that is not known). It touches none.
func Listen(getenv func(string) string, pid int, pidfdID uint64) ([]Inherited, error) {
	if getenv(EnvListenPID) != strconv.Itoa(pid) {
		return nil, nil // none, or another process's
	}
	if id := getenv(EnvListenPIDFDID); id != "" && pidfdID != 0 && id != strconv.FormatUint(pidfdID, 10) {
		return nil, nil // of a process that had our number before us
	}
	text := getenv(EnvListenFDs)
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxFDs {
		return nil, fmt.Errorf("%w: %s=%q is no number of descriptors", ErrEnvironment, EnvListenFDs, text)
	}
	var names []string
	if text := getenv(EnvListenNames); text != "" {
		names = strings.Split(text, ":")
		if len(names) != n {
			return nil, fmt.Errorf("%w: %s has %d names for %d descriptors", ErrEnvironment, EnvListenNames, len(names), n)
		}
	}
	all := make([]Inherited, n)
	for i := range all {
		all[i].FD = firstFD + i
		if names != nil {
			all[i].Name = names[i]
		}
	}
	return all, nil
}
