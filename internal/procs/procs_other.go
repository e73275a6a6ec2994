//go:build !linux

package procs

// Child is not supported here.
func Child(string) int { return 0 }

// Descends is not supported here.
func Descends(int) bool { return true }

// Has is not supported here.
func Has(int, string) bool { return false }

// Marked is not supported here.
func Marked(string) []int { return nil }

// Kill is not supported here.
func Kill(int, string) {}
