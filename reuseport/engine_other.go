//go:build !linux

package reuseport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
)

func unsupported(what string) error {
	return fmt.Errorf("reuseport: %s on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}

func (c *crew) steer(context.Context, Steering) error { return unsupported("steering") }

func (c *crew) remove(_ context.Context, sockets []*socket, shut bool) (Report, error) {
	err := unsupported("leaving without loss")
	if !shut {
		return Report{}, err
	}
	report := Report{Strategy: StrategyBestEffort, LossPossible: true}
	report.note(err.Error())
	for _, s := range sockets {
		if c.drop(s) {
			report.Members++
			err = errors.Join(err, s.shut())
		}
	}
	return report, err
}

func move(context.Context, []syscall.Conn, []Leaving, time.Duration) (Report, error) {
	return Report{}, unsupported("steering")
}

func openBound(context.Context, *net.ListenConfig, string, string) (*os.File, error) {
	return nil, unsupported("binding without listening")
}

func startListening(*os.File, int) (*net.TCPListener, error) {
	return nil, unsupported("binding without listening")
}

func duplicate(syscall.Conn) (*net.TCPListener, error) { return nil, unsupported("adopting") }

func setBacklog(_ *net.TCPListener, backlog int) error {
	if backlog == 0 {
		return nil
	}
	return unsupported("a backlog of one's own")
}

func joinable(syscall.Conn) error { return unsupported("adopting") }

func duplicatePacket(syscall.Conn) (*net.UDPConn, error) { return nil, unsupported("adopting") }

func joinablePacket(syscall.Conn) error { return unsupported("adopting") }

func boundAddr(*os.File) (net.Addr, error) { return nil, unsupported("binding without listening") }

func inodeOfConn(syscall.Conn) (uint32, error) { return 0, nil }

func isAddrInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

func extend(bool, []uint32, *socket, int) []uint32 { return nil }

func stopQueueing(syscall.Conn) error { return unsupported("stop queueing") }

func resumeQueueing(syscall.Conn) error { return unsupported("resume queueing") }
