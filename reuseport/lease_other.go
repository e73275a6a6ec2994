//go:build !linux

package reuseport

type lease struct{}

func (*lease) free() {}
