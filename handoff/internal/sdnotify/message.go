package sdnotify

import (
	"strconv"
	"strings"
	"time"
)

// Message is a list of assignments, in the order in which they were made.
type Message []string

// The assignments of sd_notify(3).
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Watchdog = "WATCHDOG=1"
)

// Status describes the service to people, in a line.
func Status(text string) string {
	return "STATUS=" + strings.Join(strings.Fields(text), " ")
}

// MainPID tells who the main process is from now on.
func MainPID(pid int) string { return "MAINPID=" + strconv.Itoa(pid) }

// MainPIDFDID tells the same by the inode of the process's pidfd (systemd 257).
func MainPIDFDID(id uint64) string { return "MAINPIDFDID=" + strconv.FormatUint(id, 10) }

// ExtendTimeout asks for so much time from now until the next notification.
func ExtendTimeout(d time.Duration) string {
	return "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(max(1, d.Microseconds()), 10)
}

// Reloading announces a reload, which Ready ends. systemd wants to know when it
// began, on the monotonic clock, to tell it from an older one (Type=notify-reload).
func Reloading(monotonic time.Duration) []string {
	return []string{"RELOADING=1", "MONOTONIC_USEC=" + strconv.FormatInt(monotonic.Microseconds(), 10)}
}

// text is what is sent.
func (m Message) text() string { return strings.Join(m, "\n") }
