//go:build !linux

package procs

import (
	"context"
	"errors"
	"syscall"
)

// Children is not supported here.
func Children(string) []int { return nil }

// Listener is a listening unix socket, and a process that has it open.
type Listener struct {
	Path string
	PID  int
}

// Listeners returns none.
func Listeners(func(string) bool) []Listener { return nil }

// KillTree is not supported here.
func KillTree(int) {}

// Descends is not supported here.
func Descends(int) bool { return true }

// Has is not supported here.
func Has(int, string) bool { return false }

// Marked is not supported here.
func Marked(string) []int { return nil }

// Kill is not supported here.
func Kill(int, string) {}

// KillAll is not supported here.
func KillAll(string) {}

// Pidfd is not supported here.
type Pidfd struct{}

// OpenPidfd is not supported here.
func OpenPidfd(int) (*Pidfd, error) { return nil, errors.ErrUnsupported }

// NewPidfd is not supported here.
func NewPidfd(int) (*Pidfd, error) { return nil, errors.ErrUnsupported }

// Wait is not supported here.
func (p *Pidfd) Wait(context.Context) error { return errors.ErrUnsupported }

// Kill is not supported here.
func (p *Pidfd) Kill() error { return errors.ErrUnsupported }

// SyscallConn is not supported here.
func (p *Pidfd) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

// Close is not supported here.
func (p *Pidfd) Close() error { return errors.ErrUnsupported }
