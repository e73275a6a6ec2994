package reuseport

import "syscall"

// ResetSteering takes the steering program off the group of a socket, which it borrows: a
// process that was killed while it steered leaves its program behind. If another process
// has the group lock, ResetSteering does nothing and returns an error: that process takes
// the program off when it has finished.
func ResetSteering(c syscall.Conn) error { return resetSteering(c) }
