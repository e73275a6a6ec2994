package spawn

import (
	"context"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/procs"
)

// A Process is a successor's process that this one has started.
type Process struct {
	// PID is the process ID, or 0 if it is not known.
	PID int
	// Stderr is its standard error until the commit.
	Stderr *Capture

	kill    func()
	loose   chan struct{} // closed when the process is left to itself
	once    sync.Once     // closes loose
	exited  chan error    // yields how it ended, once
	done    chan struct{} // closed by Ended
	err     error         // how it ended; valid once done is closed
	pidfd   *procs.Pidfd  // nil for a process that we do not wait for, and before Linux 5.3
	waiting sync.WaitGroup

	mu      sync.Mutex
	speaker *procs.Pidfd    // borrowed; nil if it is not known
	pid     int             // of the speaker
	silent  <-chan struct{} // closed when the speaker has ended
}

// NewProcess returns a process for whose end the caller waits, who then calls Ended.
// kill kills it, and has no effect on one that has ended.
func NewProcess(kill func()) (*Process, error) {
	stderr, err := NewCapture(os.Stderr)
	if err != nil {
		return nil, err
	}
	return &Process{Stderr: stderr, kill: kill, loose: make(chan struct{}), exited: make(chan error, 1), done: make(chan struct{})}, nil
}

// start starts cmd in a process group of its own and waits for its end.
func start(cmd *exec.Cmd, given []int) (*Process, error) {
	p, err := NewProcess(func() { killGroup(cmd) })
	if err != nil {
		return nil, err
	}
	ownGroup(cmd)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, p.Stderr.w
	if fd, err := fdx.Number(p.Stderr.w); err == nil {
		if journal := journalVia(fd); journal != "" {
			cmd.Env = append(cmd.Env, envJournal+"="+journal)
		}
	}
	if err := launch(cmd, given); err != nil {
		p.Stderr.Close()
		return nil, err
	}
	p.PID = cmd.Process.Pid
	p.pidfd, _ = procs.OpenPidfd(p.PID) // nil where the kernel has none
	p.waiting.Go(func() {               // ends with the process, or with Release
		// waitid(2) can't be interrupted, Release interrupts a wait for the pidfd.
		if p.pidfd == nil || p.pidfd.Wait(context.Background()) == nil {
			p.Ended(awaitEnd(cmd))
			<-p.loose // until then its group may have to be killed
			reap(cmd)
			return
		}
		_ = cmd.Process.Release()
	})
	return p, nil
}

// Ended notes that the process has ended, and how: err is nil after exit status 0.
func (p *Process) Ended(err error) {
	p.err = err
	p.exited <- err
	close(p.done)
}

// SpokenFor says which process speaks for the successor: p, or one that p has started,
// where p is a wrapper. pidfd is borrowed, and may be closed when silent is, which says
// that the process has ended.
func (p *Process) SpokenFor(pid int, pidfd *procs.Pidfd, silent <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid, p.speaker, p.silent = pid, pidfd, silent
}

// Kill kills the process and its group, and the process that speaks for it, which has
// left the group, with what that has started.
func (p *Process) Kill() {
	p.mu.Lock()
	pid, speaker, silent := p.pid, p.speaker, p.silent
	p.mu.Unlock()
	select {
	case <-silent:
	default:
		if speaker != nil {
			procs.KillTree(pid)
			_ = speaker.Kill() // it has ended
		}
	}
	p.kill()
}

// Exited yields how the process has ended, once.
func (p *Process) Exited() <-chan error { return p.exited }

// Done is closed when the process has ended and was waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process has ended, once Done is closed.
func (p *Process) Err() error { return p.err }

// End returns when the process has ended, and the one that speaks for it, and nothing of
// them is left here. It kills them when limit has passed, where that is positive, or when
// cut is closed, and what is left in their group in any case: not what a successor that
// has joined this process's group (JoinGroup) has started, and that outlives it.
func (p *Process) End(limit time.Duration, cut <-chan struct{}) {
	var expired <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		expired = t.C
	}
	p.mu.Lock()
	silent := p.silent
	p.mu.Unlock()
	for done := p.done; done != nil || silent != nil; {
		select {
		case <-done:
			done = nil
		case <-silent:
			silent = nil
		case <-expired:
			expired = nil
			p.Kill()
		case <-cut:
			cut = nil
			p.Kill()
		}
	}
	p.kill()
	p.Release()
}

// Leave leaves the process and its group to themselves, as after a commit: Kill is not
// called any more.
func (p *Process) Leave() { p.once.Do(func() { close(p.loose) }) }

// Release is Leave, and returns when nothing of the process is left here. Without a pidfd the wait for its end can't be interrupted, and lasts
// as long as this process.
func (p *Process) Release() {
	p.Leave()
	if p.pidfd != nil {
		_ = p.pidfd.Close() // which ends its Wait
		p.waiting.Wait()
	}
	p.Stderr.Close()
}
