//go:build !linux

package fdx

// Given is empty here.
type Given []string

// InheritedNow returns none here.
func InheritedNow() Given { return nil }

// ParseGiven returns none here.
func ParseGiven(string) Given { return nil }

func (Given) String() string { return "" }

// Keep does nothing here.
func (Given) Keep() {}

// Numbers returns none here.
func (Given) Numbers() []int { return nil }

// Alone calls start.
func Alone(start func()) { start() }
