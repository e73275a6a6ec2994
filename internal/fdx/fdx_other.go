//go:build !linux

package fdx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
)

var errUnsupported = fmt.Errorf("descriptors on %s: %w", runtime.GOOS, errors.ErrUnsupported)

// Dup is not supported here.
func Dup(syscall.Conn) (int, error) { return -1, errUnsupported }

// DupFD is not supported here.
func DupFD(int) (int, error) { return -1, errUnsupported }

// Bind is not supported here.
func Bind(context.Context, *net.ListenConfig, string, string) (int, error) {
	return -1, errUnsupported
}

// Borrow is not supported here.
func Borrow(syscall.Conn, func(int) error) error { return errUnsupported }

// Number is not supported here.
func Number(syscall.Conn) (int, error) { return -1, errUnsupported }

// Close is not supported here, where no function returns a descriptor. Without
// fds it returns nil.
func Close(fds ...int) error {
	if len(fds) == 0 {
		return nil
	}
	return errUnsupported
}

// Listener is not supported here.
func Listener(int, string) (net.Listener, error) { return nil, errUnsupported }

// PacketConn is not supported here.
func PacketConn(int, string) (net.PacketConn, error) { return nil, errUnsupported }

// Conn is not supported here.
func Conn(int, string) (net.Conn, error) { return nil, errUnsupported }

// UnixConn is not supported here.
func UnixConn(int, string) (*net.UnixConn, error) { return nil, errUnsupported }

// SocketPair is not supported here.
func SocketPair(string) (*net.UnixConn, *os.File, error) { return nil, nil, errUnsupported }

// Info is not supported here.
func Info(int) (SocketInfo, error) { return SocketInfo{}, errUnsupported }

// InfoInto is not supported here.
func InfoInto(int, []byte) (SocketInfo, error) { return SocketInfo{}, errUnsupported }

// PeerCred is not supported here.
func PeerCred(syscall.Conn) (Cred, error) { return Cred{}, errUnsupported }

// ExpectCred is not supported here.
func ExpectCred(*net.UnixConn) error { return errUnsupported }

// SenderCred is not supported here.
func SenderCred(*net.UnixConn) (Cred, error) { return Cred{}, errUnsupported }

// NewBlob is not supported here.
func NewBlob(string) (*os.File, error) { return nil, errUnsupported }

// Seal is not supported here.
func Seal(*os.File) error { return errUnsupported }

// Sealed is not supported here.
func Sealed(int) (bool, error) { return false, errUnsupported }

// RaiseNoFile is not supported here.
func RaiseNoFile(int) error { return errUnsupported }
