//go:build !linux

package flows

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// Other systems have no such program.

type group []int

var errBlind = errors.New("probes do not reach the lanes")

func bind(context.Context, net.ListenConfig, string, string, int, syscall.Conn) (group, error) {
	return nil, failure.Unsupported
}

func (group) attach(*route) error            { return failure.Unsupported }
func (group) verify(*route, ...int) error    { return failure.Unsupported }
func (group) flush(int)                      {}
func (group) conn(int) (*net.UDPConn, error) { return nil, failure.Unsupported }
func (group) close() error                   { return nil }

type header struct {
	Lanes int
	Key   key
	IDs   IDs

	Shared bool
}

type table struct {
	header
	shared int
}

func newRendezvous(Key, net.Addr) (*net.UnixListener, error) { return nil, failure.Unsupported }
func (*arrival) listener() (*net.UnixListener, error)        { return nil, failure.Unsupported }
func (*Set) answer()                                         {}

func ask(context.Context, Key) (*arrival, error) { return nil, failure.Unsupported }

func newTable(header) (*table, error) { return nil, failure.Unsupported }
func openTable(int) (*table, error)   { return nil, failure.Unsupported }

func (*table) close() error                        { return nil }
func (*table) capacity() int                       { return 0 }
func (*table) state() (state, error)               { return state{}, failure.Unsupported }
func (*table) swap(_, _ state) bool                { return false }
func (*table) changes() uint64                     { return 0 }
func (*table) setKept(int, []netip.AddrPort) error { return failure.Unsupported }
func (*table) kept(int) ([]netip.AddrPort, error)  { return nil, failure.Unsupported }
func (*table) take(int64) (bool, error)            { return false, failure.Unsupported }
func (*table) taken(int) (bool, error)             { return false, failure.Unsupported }
func (*table) inTurn(func() error) error           { return failure.Unsupported }
func regionOf(int) int64                           { return 0 }
