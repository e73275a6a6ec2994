//go:build !linux

package procs

// Child is not supported here.
func Child(string) int { return 0 }

// Descends is not supported here.
func Descends(int) bool { return true }
