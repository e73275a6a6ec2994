package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
)

// pid waits for the process with a role. It returns 0 if there is none in time.
func (rd *round) pid(ctx context.Context, who role) int {
	if who == predecessor {
		return rd.pred
	}
	pid := 0
	err := rd.until(ctx, rd.first, func(ms []message) bool {
		for _, m := range ms {
			if m.Kind == "started" && m.PID != rd.pred {
				pid = m.PID
				return true
			}
		}
		return rd.over(ms)
	})
	if err != nil {
		return 0
	}
	return pid
}

// over reports whether the predecessor has ended its upgrade, or itself.
func (rd *round) over(ms []message) bool {
	return slices.ContainsFunc(ms, func(m message) bool {
		return m.PID == rd.pred && (m.Kind == string(handoff.EventUpgradeFailed) || m.Kind == string(handoff.EventCommitted) || m.Kind == "exit" || m.Kind == "failed")
	}) || !running(rd.pred)
}

// step waits for a step of the upgrade, and for a random time beyond it. It
// reports whether the step came.
func (rd *round) step(ctx context.Context, step handoff.EventKind) (bool, error) {
	came := false
	err := rd.until(ctx, rd.first, func(ms []message) bool {
		came = slices.ContainsFunc(ms, func(m message) bool { return m.PID == rd.pred && m.Kind == string(step) })
		return came || rd.over(ms)
	})
	limit := 2 * time.Millisecond
	if step == handoff.EventPaused {
		limit = rd.probation
	}
	if came && limit > 0 {
		sleep(ctx, time.Duration(rd.rng.Int64N(int64(limit))))
	}
	return came, err
}

// kill kills a process at a step.
func kill(who role, step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		came, err := rd.step(ctx, step)
		pid := rd.pid(ctx, who)
		if err != nil || !came || pid == 0 || !running(pid) {
			return false, err
		}
		rd.die(pid, now())
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return false, nil // it has ended first, so its connections have ended but were not cut
		}
		rd.killed, rd.killedAt = who, rd.count()
		return true, eventually(ctx, func() bool { return !running(pid) })
	}
}

// stop stops a process at a step, for up to a time.
func stop(who role, step handoff.EventKind, limit time.Duration) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		return rd.stopped(ctx, who, step, func() { sleep(ctx, time.Duration(rd.rng.Int64N(int64(limit)))) })
	}
}

// stopUntil stops a process at a step until the other process has given it up.
func stopUntil(who role, step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		enough := false
		happened, err := rd.stopped(ctx, who, step, func() {
			if who == successor { // which is killed then
				rd.die(rd.pid(ctx, who), now())
			}
			_ = rd.until(ctx, rd.first, func(ms []message) bool { // happened is false then
				for _, m := range ms {
					enough = enough || m.PID == rd.pred && m.Kind == string(handoff.EventUpgradeFailed) ||
						m.PID != rd.pred && m.Kind == string(handoff.EventOwner)
				}
				return enough
			})
		})
		return happened && enough, err
	}
}

// stopped calls f while a process is stopped.
func (rd *round) stopped(ctx context.Context, who role, step handoff.EventKind, f func()) (bool, error) {
	came, err := rd.step(ctx, step)
	pid := rd.pid(ctx, who)
	if err != nil || !came || pid == 0 {
		return false, err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return false, nil // it was quicker
	}
	err = eventually(ctx, func() bool { return stateOf(pid) == 'T' || !running(pid) })
	happened := stateOf(pid) == 'T'
	if happened {
		f()
	}
	_ = syscall.Kill(pid, syscall.SIGCONT) // it may have been killed
	return happened, err
}

// hostile sends garbage to the control socket, and opens connections that send nothing.
func hostile(step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		came, err := rd.step(ctx, step)
		if err != nil || !came {
			return false, err
		}
		happened := false
		for range 16 {
			c, err := net.Dial("unix", filepath.Join(rd.set.Dir, "ctl", "s"))
			if err != nil {
				continue // a full queue
			}
			happened = true
			defer c.Close()
			garbage := make([]byte, rd.rng.IntN(200))
			_, _ = rand.Read(garbage) // never fails
			if rd.rng.IntN(2) == 0 && len(garbage) > 8 {
				copy(garbage, []byte{0, 0, 0, 16, 0, 1, 0, 0}) // a header that makes sense
			}
			_, _ = c.Write(garbage) // it may have hung up
		}
		sleep(ctx, time.Duration(rd.rng.Int64N(int64(20*time.Millisecond))))
		return happened, nil
	}
}

// otherUser connects to the control socket as another user. The folder's mode must
// prevent it.
func otherUser(step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		came, err := rd.step(ctx, step)
		if err != nil || !came {
			return false, err
		}
		path := filepath.Join(rd.set.Dir, "ctl", "s")
		var c net.Conn
		rd.rig.link.Server.DoAs(65534, func() { c, err = net.Dial("unix", path) })
		if err == nil {
			_ = c.Close()
		}
		if !errors.Is(err, os.ErrPermission) {
			return false, fmt.Errorf("another user dials %s: %v, want %w", path, err, os.ErrPermission)
		}
		return true, nil
	}
}

// second starts one more process by hand.
func second(step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		came, err := rd.step(ctx, step)
		if err != nil || !came {
			return false, err
		}
		rd.extra, err = rd.start()
		return err == nil, err
	}
}

// again sends another signal to upgrade.
func again(who role, step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		came, err := rd.step(ctx, step)
		pid := rd.pid(ctx, who)
		if err != nil || !came || pid == 0 {
			return false, err
		}
		// Before New has asked for it, the signal ends a process (signal(7)).
		deaf := func() bool {
			return !slices.ContainsFunc(rd.received(rd.first), func(m message) bool { return m.PID == pid && m.Kind == string(handoff.EventJoined) })
		}
		if who == successor && deaf() {
			return false, nil
		}
		for range 3 {
			if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
				return false, nil // it was quicker
			}
			sleep(ctx, time.Duration(rd.rng.Int64N(int64(10*time.Millisecond))))
		}
		return true, nil
	}
}

// terminate sends a process the stop signal, which ends the service if that process
// owns it. The process must end, whichever process serves then.
func terminate(who role, step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		came, err := rd.step(ctx, step)
		pid := rd.pid(ctx, who)
		if err != nil || !came || pid == 0 {
			return false, err
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			return false, nil // it was quicker
		}
		return true, eventually(ctx, func() bool { return !running(pid) })
	}
}

// noFile takes the predecessor's descriptors away, but for those that it has,
// until its upgrade has failed. It is called before the upgrade is triggered.
func noFile(ctx context.Context, rd *round) (happened bool, err error) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", rd.pred))
	if err != nil {
		return false, err
	}
	var old unix.Rlimit
	if err := unix.Prlimit(rd.pred, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		return false, os.NewSyscallError("prlimit", err)
	}
	limit := unix.Rlimit{Cur: uint64(len(open)) + uint64(rd.rng.IntN(6)), Max: old.Max}
	if err := unix.Prlimit(rd.pred, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return false, os.NewSyscallError("prlimit", err)
	}
	defer func() {
		if e := unix.Prlimit(rd.pred, unix.RLIMIT_NOFILE, &old, nil); e != nil && running(rd.pred) {
			err = errors.Join(err, os.NewSyscallError("prlimit", e))
		}
	}()
	if err := rd.trigger(); err != nil {
		return false, err
	}
	err = rd.until(ctx, rd.first, func(ms []message) bool {
		for _, m := range ms {
			happened = happened || m.PID == rd.pred && m.Kind == string(handoff.EventUpgradeFailed)
		}
		return rd.over(ms)
	})
	return happened, err
}

// fullDisk fills the file system of the PID file until the upgrade is over. It
// is called before the upgrade is triggered.
func fullDisk(ctx context.Context, rd *round) (happened bool, err error) {
	path := filepath.Join(rd.set.State, "filler")
	f, err := os.Create(path)
	if err != nil {
		return false, err
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	happened = errors.Is(err, syscall.ENOSPC)
	if err := f.Close(); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	if !happened {
		return false, err
	}
	if err := rd.trigger(); err != nil {
		return false, err
	}
	return true, rd.until(ctx, rd.first, rd.over)
}

// eventually polls for a condition without an event.
func eventually(ctx context.Context, ok func() bool) error {
	for wait := time.Millisecond; !ok(); wait = min(2*wait, 20*time.Millisecond) {
		sleep(ctx, wait)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}
