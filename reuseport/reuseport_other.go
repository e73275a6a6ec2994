//go:build !linux

package reuseport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"time"
)

func unsupported(what string) error {
	return fmt.Errorf("reuseport: %s on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}

func resetSteering(syscall.Conn) error { return unsupported("steering") }

type groupLock struct{}

func (*groupLock) free() {}

func (g *localGroup) steer(context.Context, Steering) error { return unsupported("steering") }

func (g *localGroup) remove(_ context.Context, socks []*socket) (Report, error) {
	err := unsupported("leaving without loss")
	report := Report{Strategy: StrategyBestEffort, LossPossible: true}
	report.note(err.Error())
	for _, s := range socks {
		if g.drop(s) {
			report.Members++
			err = errors.Join(err, s.close())
		}
	}
	return report, err
}

func move(context.Context, []syscall.Conn, []Leaving, time.Duration) (Report, error) {
	return Report{}, unsupported("steering")
}

func setBacklog(_ *net.TCPListener, backlog int) error {
	if backlog == 0 {
		return nil
	}
	return unsupported("a backlog of one's own")
}

func inodeOf(syscall.Conn) (uint32, error) { return 0, nil }

func isAddrInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

func stopQueueing(syscall.Conn) error { return unsupported("stop queueing") }

func resumeQueueing(syscall.Conn) error { return unsupported("resume queueing") }

func queueLen(syscall.Conn) (n, backlog int, err error) { return 0, 0, unsupported("queue length") }

func halfOpen(syscall.Conn) (int, error) { return 0, unsupported("half-open handshakes") }
