//go:build !linux

package sdnotify

import (
	"context"
	"time"
)

// Notifier is nothing here.
type Notifier struct{}

// New returns nil: there is no systemd.
func New(func(string) string, time.Duration) (*Notifier, error) { return nil, nil }

// Send does nothing.
func (*Notifier) Send(Message, ...int) error { return nil }

// Barrier does nothing.
func (*Notifier) Barrier(context.Context) error { return nil }

// Store does nothing.
func (*Notifier) Store(string, int) error { return nil }

// Unstore does nothing.
func (*Notifier) Unstore(string) error { return nil }

// Room reports that there is none.
func (*Notifier) Room(context.Context, string) (bool, error) { return false, nil }

// Monotonic returns 0.
func Monotonic() time.Duration { return 0 }

// PIDFDID returns 0.
func PIDFDID(int) uint64 { return 0 }
