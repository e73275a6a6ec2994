package supervisor

import (
	"context"

	"github.com/seed-11c92bf9/baton/internal/procs"
)

// watch calls ended when a process that is not our child has ended, unless stop is
// called first. Only the process's parent gets its exit status.
func watch(pid int, ended func()) (stop func(), err error) {
	p, err := procs.OpenPidfd(pid)
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() { // ends with the process, or with stop, which waits
		defer close(done)
		if p.Wait(context.Background()) == nil {
			ended()
		}
	}()
	return func() {
		_ = p.Close() // which ends Wait
		<-done
	}, nil
}
