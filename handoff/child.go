package handoff

import (
	"os"
	"runtime"
	"time"
)

// child is a successor's process that we started, or had tableflip start.
type child struct {
	pid    int           // 0 if it is not known
	kill   func()        // to no effect on an ended one
	exited chan error    // yields its end, once
	done   chan struct{} // closed when it has ended and was waited for
}

func newChild(kill func()) *child {
	return &child{kill: kill, exited: make(chan error, 1), done: make(chan struct{})}
}

// killInherited kills the child that tableflip has started, which does not
// tell who it is.
func (u *Upgrader) killInherited(up *upgrade) {
	pid := int(up.peer.Load())
	if pid == 0 {
		pid = findChild(envTableflip)
	}
	if pid <= 0 {
		return // it is gone, or tableflip's own timeout gets it
	}
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill() // gone is as good
	}
}

// finishChild sees to it that a successor that has failed leaves no process:
// one that has accepted connections gets the linger limit for them, any other
// is killed by now. Its standard error goes on until then.
func (u *Upgrader) finishChild(up *upgrade) {
	c, capture := up.child, up.capture
	if c == nil {
		if capture != nil {
			capture.close() // it was not started
		}
		return
	}
	// What it wrote belongs into the error: give it a moment to end.
	t := time.NewTimer(time.Second)
	select {
	case <-c.done:
	case <-t.C:
	}
	t.Stop()
	u.failures.begin()
	u.wg.Go(func() { // ends with the process, which the timer or closing ends
		defer u.failures.end()
		var limit <-chan time.Time
		if u.cfg.LingerTimeout > 0 {
			t := time.NewTimer(u.cfg.LingerTimeout)
			defer t.Stop()
			limit = t.C
		}
		select {
		case <-c.done:
		case <-limit:
			c.kill()
		case <-u.closing:
			c.kill()
		}
		<-c.done
		capture.close()
		if up.inherit {
			runtime.GC() // tableflip leaves its ends of two pipes to the collector
		}
	})
}
