package handoff_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/fakesystemd"
)

// keeper is a systemd that has a descriptor store for a service.
type keeper struct {
	*fakesystemd.Systemd
	tb   testing.TB
	size int    // FileDescriptorStoreMax=
	says string // FDSTORE; empty: size
}

func newKeeper(tb testing.TB, size int) *keeper {
	tb.Helper()
	return &keeper{Systemd: fakesystemd.Start(tb), tb: tb, size: size}
}

// start starts a process of a service, with what is in the store.
func (k *keeper) start(s *service) *service {
	k.tb.Helper()
	says := k.says
	if says == "" {
		says = strconv.Itoa(k.size)
	}
	cmd := s.command()
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+k.Path, "FDSTORE="+says)
	k.Pass(cmd)
	k.StartMain(k.size, func() int {
		s.startCommand(cmd)
		return cmd.Process.Pid
	})
	for _, f := range cmd.ExtraFiles {
		_ = f.Close() // the process has its own
	}
	s.wait("owner")
	return s
}

// again starts the service anew: another process, the same settings.
func (k *keeper) again(s *service) *service {
	k.tb.Helper()
	return k.start(newService(k.tb, s.set))
}

// crash kills the main process and, as systemd does, what is left of the service,
// and waits until all is gone.
func (k *keeper) crash(s *service) {
	k.tb.Helper()
	if err := syscall.Kill(k.Main(), syscall.SIGKILL); err != nil {
		k.tb.Fatal(err)
	}
	s.line.Kill()
	s.gone(s.pidsSeen()...)
	closed(k.tb, controlOf(s))
}

// has reports whether the store has a socket whose name has part in it.
func (k *keeper) has(part string) bool {
	names, _ := k.Stored()
	return slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, part) })
}

// awaitSize waits until n sockets are in the store.
func (k *keeper) awaitSize(n int) []string {
	k.tb.Helper()
	return k.AwaitStored(fmt.Sprintf("%d sockets", n), func(names []string) bool {
		return len(names) == n && !slices.Contains(names, "baton.probe")
	})
}

// stored waits until a process says that its store is up to date.
func stored(s *service) message {
	s.tb.Helper()
	return s.wait("stored")
}
