package reuseport

import (
	"context"
	"syscall"
)

func resetSteering(c syscall.Conn) error {
	key, err := groupKeyOf(c)
	if err != nil {
		return err
	}
	now, cancel := context.WithCancel(context.Background())
	cancel() // no wait
	lock, err := takeGroupLock(now, key.lockName())
	if err != nil {
		return err
	}
	defer lock.free()
	return detach(c)
}
