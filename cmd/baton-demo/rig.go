package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/load"
)

// A rig is a service with its successive processes, its clients, and the messages of
// both.
type rig struct {
	dir  string // the service's folder
	path string // the service's program
	mark string // in the environment of all processes

	baton string // the program that upgrades it

	service, clients   *exec.Cmd
	stdin, clientStdin *os.File // closing one ends its processes
	log                *os.File // standard error of all processes
	readers            sync.WaitGroup

	mu       sync.Mutex
	news     chan struct{} // closed and replaced when a field below changes
	messages []message     // of the service
	stats    load.Stats    // the latest
	final    bool          // stats is final
	over     int           // outputs that have ended: of the service, of the clients
}

// newRig prepares a rig below dir. After close, only files that the service left in its
// own folder remain.
func newRig(dir string) (*rig, error) {
	r := &rig{dir: filepath.Join(dir, "run"), path: filepath.Join(dir, "server"), mark: envMark + "=" + dir, news: make(chan struct{})}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return nil, err
	}
	var err error
	r.log, err = os.Create(filepath.Join(dir, "log"))
	return r, err
}

// envMark identifies the rig in the environment of its processes.
const envMark = "BATON_DEMO_RIG"

// start starts a program whose standard input is a pipe that this process holds, and
// calls each with each line of its output.
func (r *rig) start(path string, args []string, each func([]byte)) (_ *exec.Cmd, stdin *os.File, err error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer inR.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		_ = inW.Close()
		return nil, nil, err
	}
	defer outW.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, r.log
	cmd.Env = append(os.Environ(), r.mark, "TMPDIR="+filepath.Join(filepath.Dir(r.dir), "tmp"))
	prepare(cmd)
	if err := cmd.Start(); err != nil {
		_, _ = inW.Close(), outR.Close()
		return nil, nil, err
	}
	r.readers.Go(func() { // ends with the last process that has the pipe
		defer outR.Close()
		sc := bufio.NewScanner(outR)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			r.tell(func() { each(sc.Bytes()) })
		}
		_, _ = io.Copy(io.Discard, outR) // after a line that was too long
		r.tell(func() { r.over++ })
	})
	return cmd, inW, nil
}

// tell changes the fields below news, and wakes those who wait for a change.
func (r *rig) tell(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.news)
	r.news = make(chan struct{})
}

// startService starts the first process of the service and waits until it serves.
func (r *rig) startService(ctx context.Context, args ...string) (addresses, error) {
	var err error
	r.service, r.stdin, err = r.start(r.path, append([]string{"serve", "-until-eof", "-dir", r.dir}, args...), func(line []byte) {
		var m message
		if json.Unmarshal(line, &m) == nil { // ignore other lines
			r.messages = append(r.messages, m)
		}
	})
	if err != nil {
		return addresses{}, err
	}
	var a addresses
	err = r.until(ctx, "start of the service", func() (bool, error) {
		for _, m := range r.messages {
			if m.Kind == kindServing {
				a = *m.Addresses
				return true, nil
			}
		}
		if r.over > 0 {
			return false, errors.New("it has ended")
		}
		return false, nil
	})
	return a, err
}

// startClients starts the clients and waits until each has an answer.
func (r *rig) startClients(ctx context.Context, a addresses, args ...string) error {
	var err error
	args = append([]string{"load", "-tcp", a.TCP, "-unix", a.Unix, "-udp", a.UDP, "-http", a.HTTP, "-every", "100ms"}, args...)
	r.clients, r.clientStdin, err = r.start(r.path, args, func(line []byte) {
		var m loadMessage
		if json.Unmarshal(line, &m) == nil {
			r.stats, r.final = m.Stats, m.Kind == kindFinal
		}
	})
	if err != nil {
		return err
	}
	return r.until(ctx, "first answers", func() (bool, error) {
		if r.over > 0 {
			return false, errors.New("a process has ended")
		}
		for _, t := range r.stats.Targets {
			if t.AnsweredLast == "" {
				return false, nil
			}
		}
		return len(r.stats.Targets) > 0, nil
	})
}

// until waits until ok returns true. It calls ok on each change, with the lock held.
func (r *rig) until(ctx context.Context, what string, ok func() (bool, error)) error {
	for {
		r.mu.Lock()
		done, err := ok()
		news := r.news
		r.mu.Unlock()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", what, err)
		case done:
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}

// The exit statuses of baton upgrade for an upgrade that has begun and failed.
const (
	statusFailed     = 8
	statusRolledBack = 9
)

// upgrade calls baton upgrade, and waits until version to answers all new connections.
// It calls each with each step of the upgrade, and on each change of the clients'
// counts, with the lock held.
func (r *rig) upgrade(ctx context.Context, from, to string, each func(step handoff.EventKind)) (upgradeInfo, error) {
	info := upgradeInfo{From: from, To: to}
	pid, err := r.pid()
	if err != nil {
		return info, err
	}
	r.mu.Lock()
	seen := len(r.messages)
	r.mu.Unlock()
	began := time.Now()
	over, failed, begun := false, error(nil), false
	cmd := exec.CommandContext(ctx, r.baton, "upgrade", "--plain", "--socket", filepath.Join(r.dir, controlName))
	cmd.Env = append(os.Environ(), r.mark)
	prepare(cmd)
	var end sync.WaitGroup
	defer end.Wait()
	end.Go(func() { // ends with the upgrade, or with ctx
		out, err := cmd.CombinedOutput()
		r.tell(func() {
			over = true
			if err != nil {
				// The service also reports an upgrade that failed, perhaps after baton
				// does. That report must not count for the next upgrade.
				begun = slices.Contains([]int{statusFailed, statusRolledBack}, cmd.ProcessState.ExitCode())
				failed = fmt.Errorf("baton upgrade: %w: %s", err, out)
			}
		})
	})
	err = r.until(ctx, "upgrade to "+to, func() (bool, error) {
		var step handoff.EventKind
		for _, m := range r.messages[seen:] {
			if m.PID != pid {
				continue // the successor reports the same
			}
			switch kind := handoff.EventKind(m.Kind); kind {
			case handoff.EventUpgradeFailed:
				return false, errors.New(m.Reason)
			case handoff.EventCommitted:
				step, info.Report = kind, m.Report
			case handoff.EventTransfer, handoff.EventWarming, handoff.EventPaused, handoff.EventCommitting:
				step = kind
			}
		}
		each(step)
		if failed != nil && !begun {
			return false, failed
		}
		if r.over > 0 {
			return false, errors.New("a process has ended")
		}
		if info.Report == nil || !over {
			return false, nil
		}
		if now, err := r.pid(); err != nil || now == pid {
			return false, err
		}
		if info.Seconds == 0 {
			info.Seconds = time.Since(began).Seconds()
		}
		for _, t := range r.stats.Targets {
			if t.AnsweredLast != to && t.Kind.Short() {
				return false, nil
			}
		}
		return true, nil
	})
	return info, err
}

// settle waits until one version has all connections, those that stay open included.
func (r *rig) settle(ctx context.Context, version string) error {
	if err := r.predecessorsGone(ctx); err != nil {
		return err
	}
	return r.until(ctx, "connections to "+version, func() (bool, error) {
		for _, t := range r.stats.Targets {
			if t.AnsweredLast != version {
				return false, nil
			}
		}
		return true, nil
	})
}

// predecessorsGone waits until no predecessor lingers.
func (r *rig) predecessorsGone(ctx context.Context) error {
	pid, err := r.pid()
	if err != nil {
		return err
	}
	return r.until(ctx, "end of the predecessors", func() (bool, error) {
		var open []int
		for _, m := range r.messages {
			switch i := slices.Index(open, m.PID); {
			case m.Kind == kindExit && i >= 0:
				open = slices.Delete(open, i, i+1)
			case m.Kind == kindServing && m.PID != pid:
				open = append(open, m.PID)
			}
		}
		return len(open) == 0, nil
	})
}

// stop ends clients and service in order, and returns the clients' counts.
func (r *rig) stop(ctx context.Context) (load.Stats, error) {
	_ = r.clientStdin.Close() // ends the clients
	err := r.until(ctx, "end of the clients", func() (bool, error) {
		if !r.final && r.over > 0 {
			return false, errors.New("they have ended without a result")
		}
		return r.final && r.over > 0, nil
	})
	if err != nil {
		return r.latest(), err
	}
	pid, err := r.pid()
	if err != nil {
		return r.latest(), err
	}
	if err := stopSignal(pid); err != nil {
		return r.latest(), err
	}
	err = r.until(ctx, "end of the service", func() (bool, error) { return r.over == 2, nil })
	return r.latest(), err
}

func (r *rig) latest() load.Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// pid returns the process ID in the service's PID file.
func (r *rig) pid() (int, error) {
	b, err := os.ReadFile(filepath.Join(r.dir, pidName))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// close kills the remaining processes and waits for them. It returns what was left:
// processes or files.
func (r *rig) close() (left []string, err error) {
	for _, f := range []*os.File{r.stdin, r.clientStdin} {
		if f != nil {
			_ = f.Close() // fails after an orderly end
		}
	}
	pids := marked(r.mark)
	for _, pid := range pids {
		left = append(left, fmt.Sprintf("process %d", pid))
	}
	err = errors.Join(err, killAll(pids))
	for _, cmd := range []*exec.Cmd{r.clients, r.service} {
		if cmd != nil {
			_ = cmd.Wait() // their exit status does not matter
		}
	}
	r.readers.Wait()
	// Wait in the order of the generations: a process becomes our child when its
	// predecessor has ended.
	for _, m := range r.messages {
		reap(m.PID)
	}
	for _, pid := range pids {
		reap(pid)
	}
	err = errors.Join(err, r.log.Close())
	for _, dir := range []string{r.dir, filepath.Join(filepath.Dir(r.dir), "tmp")} {
		err = errors.Join(err, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			// The lock file of the control socket stays: removing a lock file can leave
			// two processes with one lock each.
			if err == nil && !d.IsDir() && path != filepath.Join(r.dir, controlName+".lock") {
				left = append(left, path)
			}
			return err
		}))
	}
	return left, err
}

// lastLog returns the last lines of the processes' standard error.
func (r *rig) lastLog(n int) []string {
	b, err := os.ReadFile(r.log.Name())
	if err != nil || len(b) == 0 {
		return nil
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return all[max(0, len(all)-n):]
}
