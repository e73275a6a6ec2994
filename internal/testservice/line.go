package testservice

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/internal/procs"
)

// A Line is the processes of a service, and the messages that they have written. Its
// methods may be called from several goroutines.
type Line[M any] struct {
	mark    string
	log     log
	running sync.WaitGroup // what Start has begun

	mu       sync.Mutex
	messages []M
	taken    []bool        // by a Take, one for each message
	outputs  int           // standard outputs that some process holds
	first    []*os.Process // that Start has started
	changed  chan struct{} // closed and replaced when something above has changed
}

// New returns a line without processes. All that it starts have mark in their
// environment, see package procs.
func New[M any](mark string) *Line[M] {
	return &Line[M]{mark: mark, changed: make(chan struct{})}
}

// Start starts a first process of the line, by start or, if that is nil, by cmd.Start. Its
// successors share its standard output and standard error. The error of cmd.Wait shows in
// cmd.ProcessState.
func (l *Line[M]) Start(cmd *exec.Cmd, start func() error) error {
	out, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	errs, errsW, err := os.Pipe()
	if err != nil {
		_, _ = out.Close(), outW.Close()
		return err
	}
	cmd.Stdout, cmd.Stderr = outW, errsW
	if start == nil {
		start = cmd.Start
	}
	err = start()
	_, _ = outW.Close(), errsW.Close()
	if err != nil {
		_, _ = out.Close(), errs.Close()
		return err
	}
	l.change(func() { l.outputs, l.first = l.outputs+1, append(l.first, cmd.Process) })
	l.running.Go(func() { _ = cmd.Wait() })
	l.running.Go(func() { // ends with the last process of the line
		_, _ = io.Copy(&l.log, errs)
		_ = errs.Close()
	})
	l.running.Go(func() { // likewise
		l.read(out)
		_ = out.Close()
		l.change(func() { l.outputs-- })
	})
	return nil
}

func (l *Line[M]) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var m M
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue // the test framework writes there, too
		}
		l.change(func() { l.messages, l.taken = append(l.messages, m), append(l.taken, false) })
	}
	_, _ = io.Copy(io.Discard, out) // after a line that was too long
}

func (l *Line[M]) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// Messages returns all messages so far.
func (l *Line[M]) Messages() []M {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.messages)
}

// Log returns what the processes have written to standard error.
func (l *Line[M]) Log() string { return l.log.String() }

// Take waits for a message that no other Take has had, until no process is left that
// could send it.
func (l *Line[M]) Take(ctx context.Context, ok func(M) bool) (got M, err error) {
	sent := false
	err = l.wait(ctx, func() bool {
		for i, m := range l.messages {
			if !l.taken[i] && ok(m) {
				l.taken[i], got, sent = true, m, true
				return true
			}
		}
		return l.outputs == 0
	})
	if err == nil && !sent {
		err = l.lacks(errors.New("all processes have ended"))
	}
	return got, err
}

// Until waits until ok is true of all messages so far, and of whether a process holds the
// line's standard output still.
func (l *Line[M]) Until(ctx context.Context, ok func(all []M, runs bool) bool) error {
	return l.wait(ctx, func() bool { return ok(l.messages, l.outputs > 0) })
}

func (l *Line[M]) wait(ctx context.Context, ok func() bool) error {
	for {
		l.mu.Lock()
		done, changed := ok(), l.changed
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return l.lacks(context.Cause(ctx))
		}
	}
}

// lacks is the error of a wait that has ended without what it waited for.
func (l *Line[M]) lacks(err error) error {
	return fmt.Errorf("%w; messages: %+v\nlog:\n%s", err, l.Messages(), l.Log())
}

// Wait waits until no process of the line is left.
func (l *Line[M]) Wait() { l.running.Wait() }

// Kill kills all processes of the line and waits for their end.
func (l *Line[M]) Kill() {
	l.mu.Lock()
	for _, p := range l.first {
		_ = p.Kill() // it may have been started without the mark
	}
	l.mu.Unlock()
	over := make(chan struct{})
	go func() { // ends with the processes, which Kill waits for
		l.Wait()
		close(over)
	}()
	for { // a process can end before KillAll looks at it, after starting one behind its back
		procs.KillAll(l.mark)
		select {
		case <-over:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// maxLog bounds the log of a line.
const maxLog = 16 << 20

// log collects the standard error of all processes.
type log struct {
	mu   sync.Mutex
	text []byte
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.text) < maxLog {
		l.text = append(l.text, p...)
	}
	return len(p), nil
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}
