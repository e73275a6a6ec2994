//go:build !linux

package testenv

import (
	"errors"
	"net"
)

func ipv6() error {
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return err
	}
	return ln.Close()
}

func memfd() error        { return errors.ErrUnsupported }
func mptcp() error        { return errors.ErrUnsupported }
func netns() error        { return errors.ErrUnsupported }
func pidfd() error        { return errors.ErrUnsupported }
func reuseportBPF() error { return errors.ErrUnsupported }
func systemd() error      { return errors.ErrUnsupported }
func unsharePID() error   { return errors.ErrUnsupported }
