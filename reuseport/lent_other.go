//go:build !linux

package reuseport

import (
	"context"
	"syscall"
)

// Bind works on Linux only.
func Bind(context.Context, string, string, *Config) (*Listener, error) {
	return nil, unsupported("binding without listening")
}

// Listen works on Linux only.
func (l *Listener) Listen() error { return unsupported("binding without listening") }

// Adopt works on Linux only.
func (g *Group) Adopt(syscall.Conn) (*Listener, error) { return nil, unsupported("adopting") }

// Adopt works on Linux only.
func (g *PacketGroup) Adopt(syscall.Conn) (*PacketConn, error) { return nil, unsupported("adopting") }

// Exclusive works on Linux only.
func (l *Listener) Exclusive() {}

// Exclusive works on Linux only.
func (p *PacketConn) Exclusive() {}

// Quiesce works on Linux only.
func (g *Group) Quiesce(context.Context, ...*Listener) (Report, error) {
	return Report{}, unsupported("steering")
}

// Quiesce works on Linux only.
func (g *PacketGroup) Quiesce(context.Context, ...*PacketConn) (Report, error) {
	return Report{}, unsupported("steering")
}
