package handoff_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

func hex16(n int) string { return fmt.Sprintf("%04x", n) }

func sortStrings(s []string) { sort.Strings(s) }

// keepAliveOf returns the server's keep-alive timer of the connection from
// client, in seconds, from /proc/net/tcp.
func keepAliveOf(tb testing.TB, client, server string) (seconds int, on bool) {
	tb.Helper()
	a, err := net.ResolveTCPAddr("tcp4", client)
	if err != nil {
		tb.Fatal(err)
	}
	at, err := net.ResolveTCPAddr("tcp4", server)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		tb.Fatal(err)
	}
	here, there := ":"+strings.ToUpper(hex16(at.Port)), ":"+strings.ToUpper(hex16(a.Port))
	for line := range strings.SplitSeq(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 10 || !strings.HasSuffix(f[1], here) || !strings.HasSuffix(f[2], there) || f[3] != "01" {
			continue
		}
		kind, when, _ := strings.Cut(f[5], ":") // tr:tm->when, proc(5); 02 is keep-alive
		jiffies, err := strconv.ParseInt(when, 16, 64)
		if err != nil {
			tb.Fatal(err)
		}
		return int(jiffies / 100), kind == "02"
	}
	tb.Fatalf("no connection from %s in /proc/net/tcp", client)
	return 0, false
}

// protocolOf returns SO_PROTOCOL of the listener on addr in a process.
func protocolOf(tb testing.TB, pid int, addr string) int {
	tb.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(pidfd)
	for name, target := range openFiles(tb, pid) {
		if !strings.HasPrefix(target, "socket:") {
			continue
		}
		n, err := strconv.Atoi(name)
		if err != nil {
			tb.Fatal(err)
		}
		fd, err := unix.PidfdGetfd(pidfd, n, 0)
		if err != nil {
			tb.Skipf("pidfd_getfd(2): %v", err)
		}
		info, err := fdx.Info(fd)
		var bound string
		if sa, err := unix.Getsockname(fd); err == nil {
			if in, ok := sa.(*unix.SockaddrInet4); ok {
				bound = fmt.Sprintf("%s:%d", net.IP(in.Addr[:]), in.Port)
			}
		}
		_ = unix.Close(fd)
		if err == nil && info.Listening && bound == addr {
			return info.Protocol
		}
	}
	tb.Fatalf("process %d has no listener on %s", pid, addr)
	return 0
}

// stopProcess stops a process and waits until none of its threads runs.
func stopProcess(tb testing.TB, pid int) {
	tb.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		tb.Fatal(err)
	}
	eventually(tb, "the process is stopped", func() bool {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			tb.Fatal(err)
		}
		for _, stat := range stats {
			b, err := os.ReadFile(stat)
			if err != nil {
				return false
			}
			_, rest, _ := strings.Cut(string(b), ") ")
			if !strings.HasPrefix(rest, "T") {
				return false
			}
		}
		return true
	})
}
