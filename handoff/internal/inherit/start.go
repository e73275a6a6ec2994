package inherit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/procs"
)

// startFolder is where tableflip starts a successor: as package os has named the working
// directory when the package was initialized. It is empty if that has failed.
var startFolder, _ = os.Getwd()

// Check returns an error if tableflip would start another program than the one at path,
// which this process has found at its start, in the folder dir: tableflip looks
// os.Args[0] up again. program checks the one at path.
func Check(dir, path string, program func() error) error {
	arg := os.Args[0]
	if err := program(); err != nil {
		return err
	}
	if _, err := os.Stat(startFolder); startFolder != "" && err != nil {
		return fmt.Errorf("%w: the working directory of the successor is not accessible: tableflip starts it in the folder that $PWD names at the start, or where that is empty in the folder itself: set $PWD to a link that leads to the newest release, or use mode Takeover: %w", failure.Start, err)
	}
	if strings.Contains(arg, string(os.PathSeparator)) && !filepath.IsAbs(arg) {
		here, err := os.Stat(".")
		if err != nil {
			return fmt.Errorf("%w: working directory: %w", failure.Start, err)
		}
		if then, err := os.Stat(dir); err != nil || !os.SameFile(here, then) {
			wd, err := os.Getwd()
			if err != nil {
				wd = "that this process has, which was removed" // getcwd(2): ENOENT
			}
			return fmt.Errorf("%w: %w: %q is relative: tableflip would start the one in the working directory %s, and this process was started in %s, which is another folder now: start the service by an absolute path, or use mode Takeover", failure.Unsupported, failure.Start, arg, wd, dir)
		}
	}
	starts, _ := exec.LookPath(arg) // empty: nothing is there
	found, err := os.Stat(starts)
	wanted, werr := os.Stat(path)
	if err != nil || werr != nil || !os.SameFile(found, wanted) {
		return fmt.Errorf("%w: %w: tableflip would start os.Args[0], %q, which does not lead to the program of this process, %s: start the service by that path, or use mode Takeover", failure.Unsupported, failure.Start, arg, path)
	}
	return nil
}

// Children returns the process IDs of the children of this process that have tableflip's
// variable: the child that tableflip has started, whose process ID tableflip does not
// return, and any that this process has started before its own New.
func Children() []int { return procs.Children(Variable + "=") }

// AddConversation has the next successor inherit one end of a new conversation, and
// returns the other.
func (e *Engine) AddConversation() (*net.UnixConn, error) {
	slot, ours, err := newSlot()
	if err != nil {
		return nil, e.explain(cause(err))
	}
	defer slot.Close() // tableflip takes a copy
	// The credentials of the first message name the successor: a child of that one
	// could speak, too.
	if err := errors.Join(fdx.ExpectCred(ours), e.tf.AddFile(conversationName, slot)); err != nil {
		_ = ours.Close() // no process has the other end
		return nil, e.explain(cause(err))
	}
	return ours, nil
}

// Conversation returns the inherited end of the conversation, or nil if the parent
// has left none, or another process has taken it.
func (e *Engine) Conversation() (*net.UnixConn, error) {
	slot, err := e.tf.File(conversationName)
	if err != nil || slot == nil {
		return nil, err
	}
	defer slot.Close() // a copy
	return takeSlot(slot)
}

// Start starts a successor, which inherits given as well. It returns nil when that has committed, or why it has
// not: the child's end, for one, or that of the engine. By then tableflip has read
// the child's last word, so that Stop does not kill it.
func (e *Engine) Start(given fdx.Given) error {
	// tableflip forks on a thread that we do not know. What another thread has opened
	// meanwhile without close-on-exec reaches one successor, which ends that.
	given.Keep()
	if err := os.Setenv(fdx.EnvGiven, given.String()); err != nil {
		return err
	}
	defer os.Unsetenv(fdx.EnvGiven) // other processes do not need it
	err := e.tf.Upgrade()
	for behind(err) {
		time.Sleep(time.Millisecond)
		err = e.tf.Upgrade()
	}
	switch {
	case err == nil:
		e.spent.Store(true)
		return nil
	case strings.HasPrefix(err.Error(), "can't start child"):
		return e.explain(cause(err))
	}
	return err
}

// behind reports whether tableflip refuses to upgrade because its goroutine has not
// received yet what we know: that Ready was called, or that the parent has ended,
// which WaitForParent reports first (v1.2.3, newParent and run).
func behind(err error) bool {
	return err != nil && (err.Error() == "process is not ready yet" || err.Error() == "parent hasn't exited")
}
