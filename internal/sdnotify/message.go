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

// MainPID names the new main process.
func MainPID(pid int) string { return "MAINPID=" + strconv.Itoa(pid) }

// MainPIDFDID names it by the inode of its pidfd (systemd 257).
func MainPIDFDID(id uint64) string { return "MAINPIDFDID=" + strconv.FormatUint(id, 10) }

// ExtendTimeout asks for so much time from now until the next notification.
func ExtendTimeout(d time.Duration) string {
	return "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(max(1, d.Microseconds()), 10)
}

// Reloading announces a reload, which Ready ends. systemd wants to know when it
// began, on the monotonic clock, which distinguishes it from an older one (Type=notify-reload).
func Reloading(monotonic time.Duration) []string {
	return []string{"RELOADING=1", "MONOTONIC_USEC=" + strconv.FormatInt(monotonic.Microseconds(), 10)}
}

// maxName is the longest name of a descriptor (FDNAME_MAX).
const maxName = 255

// ValidName reports whether systemd takes name for a descriptor's (FDNAME=): ASCII
// without control characters and colons.
func ValidName(name string) bool {
	return len(name) <= maxName && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == ':' })
}

// store has systemd keep the descriptors that come with the message, whatever
// poll(2) says of them: a datagram socket has an error now and then.
func store(name string) Message { return Message{"FDSTORE=1", "FDNAME=" + name, "FDPOLL=0"} }

// probe has systemd keep a descriptor until it hangs up.
func probe(name string) Message { return Message{"FDSTORE=1", "FDNAME=" + name} }

// unstore has systemd close what it keeps under a name.
func unstore(name string) Message { return Message{"FDSTOREREMOVE=1", "FDNAME=" + name} }

// text is what is sent.
func (m Message) text() string { return strings.Join(m, "\n") }
