package inherit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
)

// Variable is the one by which a process of tableflip v1.2.3 knows that it has a
// parent.
const Variable = "TABLEFLIP_HAS_PARENT_7DIU3"

// An Engine is tableflip's Upgrader. A process has one at most, which is tableflip's
// rule.
type Engine struct {
	tf      *tableflip.Upgrader
	explain func(error) error
	spent   atomic.Bool // a successor that it has started is committed
	paths   atomic.Bool // it knows a unix socket's path

	parent context.Context // ends with the parent
	stop   context.CancelFunc
	watch  sync.WaitGroup // ends parent

	mu     sync.Mutex
	opened map[string]sockets.Handle // what Open has returned, by fileName: tableflip passes it on as it is
}

// Spawned reports whether tableflip has started this process, until New has taken
// that out of the environment.
func Spawned() bool { return os.Getenv(Variable) != "" }

// New returns the engine, which joins the parent if there is one. timeout is
// tableflip's own limit for a whole upgrade. explain turns the error of a system call
// into the reason why a successor can't be started.
func New(timeout time.Duration, explain func(error) error) (*Engine, error) {
	spawned := Spawned()
	tf, err := tableflip.New(tableflip.Options{UpgradeTimeout: timeout})
	if errors.Is(err, tableflip.ErrNotSupported) {
		return nil, fmt.Errorf("%w: mode inherit on this system: %w", failure.Unsupported, err)
	}
	if err != nil {
		return nil, err
	}
	if spawned {
		// tableflip leaves its variable and its two pipes to be inherited by any process
		// that this one starts, and one that uses tableflip would take itself for a
		// successor.
		if err := os.Unsetenv(Variable); err != nil {
			return nil, err
		}
		closeOnExec(3)
		closeOnExec(4)
	}
	e := &Engine{tf: tf, explain: explain, opened: make(map[string]sockets.Handle)}
	stopped, stop := context.WithCancel(context.Background())
	parent, ended := context.WithCancel(context.Background())
	e.stop, e.parent = stop, parent
	e.watch.Go(func() { // ends with the parent, or by Stop
		_ = tf.WaitForParent(stopped) // how the parent ended does not matter
		ended()
	})
	return e, nil
}

// HasParent reports whether tableflip has started this process.
func (e *Engine) HasParent() bool { return e.tf.HasParent() }

// ParentEnded returns a context that ends with the parent: tableflip starts no
// successor earlier. Without a parent it has ended.
func (e *Engine) ParentEnded() context.Context { return e.parent }

// Ready closes what was inherited and not opened, and tells the parent that this
// process has committed. It is no error if the parent has ended.
func (e *Engine) Ready() error {
	err := e.tf.Ready()
	if errors.Is(err, syscall.EPIPE) || err != nil && strings.Contains(err.Error(), syscall.EPIPE.Error()) {
		return nil // tableflip wraps with %s: only the text is left
	}
	return err
}

// Stop ends the engine. Unless a successor of tableflip's has committed, tableflip
// then removes the paths of all unix sockets that it knows. Where mayRemove does not
// allow that (for a successor that was rolled back; a process that was taken over by
// one that it has not started; one whose unix sockets systemd keeps for the next
// process) its goroutine stays until the process ends.
func (e *Engine) Stop(mayRemove bool) {
	e.stop()
	e.watch.Wait()
	if mayRemove || e.spent.Load() || !e.paths.Load() {
		e.tf.Stop()
		<-e.tf.Exit()
	}
}
