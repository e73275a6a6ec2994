package reuseport

import "syscall"

// ResetSteering takes the steering program off the group of a socket, which it
// borrows: a process that was killed while it steered leaves its program behind. If
// another process has the group lock at this moment, ResetSteering does nothing and
// returns its error: that process takes the program off at its end.
func ResetSteering(c syscall.Conn) error { return resetSteering(c) }
