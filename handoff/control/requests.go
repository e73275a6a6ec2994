package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/internal/procs"
)

// Wait says when a call returns.
type Wait string

// The values of Wait.
const (
	WaitCommit Wait = "commit" // when the upgrade is committed, or has failed
	WaitLinger Wait = "linger" // when the predecessor's open connections are done as well
	WaitNone   Wait = "none"   // when it has begun
	WaitExit   Wait = "exit"   // of Drain: when the process has ended
)

// The limits of a status: its parts, the JSON of all together, and its sockets.
const (
	maxParts   = 1024
	maxStatus  = 16 << 20
	maxSockets = 1 << 16
)

// Status returns the server's status.
//
// Like all other calls it can return an error that matches [ErrNoServer], [ErrStale],
// [ErrNoAnswer], [handoff.ErrPeerRefused], [handoff.ErrVersion],
// [handoff.ErrUnsupported] or [handoff.ErrProtocol], or the error of ctx.
func (c *Client) Status(ctx context.Context) (*handoff.Status, error) {
	var all *handoff.Status
	parts, size := 0, 0
	err := c.do(ctx, call{op: operate.OpStatus, answer: func(a answer) error {
		parts, size = parts+1, size+a.size
		switch {
		case parts > maxParts:
			return fmt.Errorf("%w: more than %d answers", handoff.ErrProtocol, maxParts)
		case size > maxStatus:
			return fmt.Errorf("%w: a status of more than %d bytes", handoff.ErrProtocol, maxStatus)
		case a.Status == nil:
		case all == nil:
			all = a.Status
		default:
			all.Sockets = append(all.Sockets, a.Status.Sockets...)
			if len(all.Sockets) > maxSockets {
				return fmt.Errorf("%w: a status of more than %d sockets", handoff.ErrProtocol, maxSockets)
			}
		}
		return nil
	}})
	if err == nil && all == nil {
		err = fmt.Errorf("%w: an answer without a status", handoff.ErrProtocol)
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Linger counts the open connections of a process that lingers or stops.
type Linger struct {
	Open  uint64 `json:"open"`  // still open
	Moved uint64 `json:"moved"` // passed to the successor
	Cut   uint64 `json:"cut"`   // closed by force
	// Remaining is the time until the linger limit; negative if there is none.
	Remaining time.Duration `json:"remaining"`
	// Warnings say, in the result of Drain, that the process ended before its Shutdown
	// had returned: Cut counts the connections that were open at the last count.
	Warnings []string `json:"warnings,omitempty"`
}

// UpgradeConfig says how an upgrade goes. The zero value of each field gives its
// default.
type UpgradeConfig struct {
	// Executable is the program of the next version. Empty means that the server chooses:
	// see Executable of [handoff.Config]. Only the server's user and root may set it. In
	// mode Inherit it can't be set. A relative path starts at the caller's working
	// directory.
	Executable string
	// Env are variables (KEY=VALUE) that the successor, and each later one, gets in
	// addition to the environment of the server's own start, or in place of a variable
	// in it. Only the server's user and root may set them. In mode Inherit they can't be
	// set.
	Env []string
	// Timeout bounds the time up to the commit: after it the server rolls the upgrade
	// back. Zero means that only the server's own limits apply.
	Timeout time.Duration
	// Wait says when Upgrade returns. Empty means WaitCommit.
	Wait Wait

	// OnEvent gets the server's events. It may be nil.
	OnEvent func(handoff.Event)
	// OnLinger gets the counts of the predecessor's open connections, several times
	// a second, with WaitLinger. It may be nil.
	OnLinger func(Linger)
}

// Upgrade makes the server start its successor, and returns the report when the upgrade
// is committed. With WaitLinger the report includes the linger; with WaitNone it is nil.
// A nil config means all defaults.
//
// If ctx ends before the commit, Upgrade makes the server roll back, and waits for that.
// If the caller is killed, the upgrade continues.
//
// After a failed upgrade the server serves as before, and the error is a
// *[handoff.UpgradeError] with the successor's last lines. If the upgrade did not begin,
// the error matches [handoff.ErrInProgress], [handoff.ErrNotReady],
// [handoff.ErrInProbation], [handoff.ErrClosed] or [handoff.ErrUnsupported]; see
// [handoff.Upgrader.Upgrade].
func (c *Client) Upgrade(ctx context.Context, cfg *UpgradeConfig) (*handoff.Report, error) {
	if cfg == nil {
		cfg = &UpgradeConfig{}
	}
	asked := operate.Upgrade{Env: cfg.Env, Timeout: cfg.Timeout, Wait: operate.Wait(cfg.Wait)}
	if err := cfg.Wait.check(); err != nil {
		return nil, err
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("control: negative timeout %v", cfg.Timeout)
	}
	if cfg.Executable != "" {
		path, err := filepath.Abs(cfg.Executable)
		if err != nil {
			return nil, fmt.Errorf("control: %w", err)
		}
		asked.Executable = path
	}
	var report *handoff.Report
	var last handoff.Report // so far
	err := c.do(ctx, call{op: operate.OpUpgrade, body: asked, cancels: true, answer: func(a answer) error {
		if ctx.Err() != nil && a.Linger != nil {
			return context.Cause(ctx) // committed: too late to cancel
		}
		a.observe(cfg.OnEvent, cfg.OnLinger)
		if a.Event != nil && a.Event.Report != nil {
			last = *a.Event.Report
		}
		switch {
		case a.Report != nil:
			report = a.Report
		case a.Event != nil && a.Event.Kind == handoff.EventStopped:
			report = a.Event.Report // with the linger in it
		}
		return nil
	}})
	if errors.Is(err, ErrNoAnswer) && c.replaced(ctx, &last) {
		return &last, nil
	}
	if err != nil {
		return nil, err
	}
	return report, nil
}

// replaced reports whether the successor of an upgrade serves whose predecessor has
// ended before its answer. r is the last report of it, which replaced completes.
func (c *Client) replaced(ctx context.Context, r *handoff.Report) bool {
	if r.Outcome != handoff.OutcomeCommitted {
		ctx, cancel := context.WithTimeout(ctx, sendTimeout)
		defer cancel()
		st, err := c.Status(ctx)
		if err != nil || st.Generation != r.Generation {
			return false // that would be the generation after the commit
		}
		r.Outcome, r.Successor = handoff.OutcomeCommitted, handoff.Process{PID: st.PID, Version: st.Version}
	}
	if r.Durations.Total == 0 { // the predecessor did not come so far
		r.Durations.Total = max(time.Since(r.Started), 1)
	}
	r.Warnings = append(r.Warnings, fmt.Sprintf("the process of the predecessor, pid %d, has ended without Shutdown: its open connections were cut: main must call Shutdown after Done", r.Predecessor.PID))
	return true
}

// observe calls the hooks.
func (a *answer) observe(onEvent func(handoff.Event), onLinger func(Linger)) {
	if a.Event != nil && onEvent != nil {
		onEvent(*a.Event)
	}
	if a.Linger != nil && onLinger != nil {
		onLinger(*a.Linger)
	}
}

func (w Wait) check() error {
	switch w {
	case "", WaitCommit, WaitLinger, WaitNone:
		return nil
	}
	return fmt.Errorf("control: wait %q: want commit, linger or none", string(w))
}

// Rollback makes the server take its sockets back from a successor that is not committed.
// It returns the report of that upgrade when the server has them. reason is the reason in
// the report; it may be empty. [handoff.ErrNoUpgrade] says that no upgrade is under way,
// [handoff.ErrCommitted] that the upgrade is committed already.
func (c *Client) Rollback(ctx context.Context, reason string) (*handoff.Report, error) {
	var report *handoff.Report
	err := c.do(ctx, call{op: operate.OpRollback, body: operate.Rollback{Reason: reason}, answer: func(a answer) error {
		report = a.Report
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return report, nil
}

// DrainConfig says how a server ends. The zero value of each field gives its
// default.
type DrainConfig struct {
	// Reason goes into the server's log. It may be empty.
	Reason string
	// Wait says when Drain returns: with WaitNone when the server has stopped accepting,
	// with WaitLinger when its open connections have ended, with WaitExit when its
	// process has ended. Empty means WaitLinger. Before Linux 5.3 WaitExit means
	// WaitLinger.
	Wait Wait

	// OnEvent and OnLinger are those of UpgradeConfig.
	OnEvent  func(handoff.Event)
	OnLinger func(Linger)
}

// Drain makes the server end without a successor: the server stops accepting, serves its
// open connections up to its linger limit, and ends. Drain returns the last counts of the
// open connections; nil with WaitNone. The server's program may run a little longer than
// its connections: WaitExit waits for its end. If ctx ends, the server continues to
// drain. If the process ends before its Shutdown has returned, Drain returns the last
// counts with a warning, also with WaitNone; before Linux 5.3 it returns [ErrNoAnswer].
// A nil config means all defaults.
func (c *Client) Drain(ctx context.Context, cfg *DrainConfig) (*Linger, error) {
	if cfg == nil {
		cfg = &DrainConfig{}
	}
	asked := operate.Drain{Reason: cfg.Reason, Wait: operate.Wait(cfg.Wait), Process: true}
	if cfg.Wait == WaitExit {
		asked.Wait = operate.WaitLinger
	} else if err := cfg.Wait.check(); err != nil {
		return nil, err
	}
	var process *procs.Pidfd
	defer func() {
		if process != nil {
			_ = process.Close() // nothing was written
		}
	}()
	var last *Linger
	err := c.do(ctx, call{op: operate.OpDrain, body: asked, process: &process, answer: func(a answer) error {
		a.observe(cfg.OnEvent, cfg.OnLinger)
		last = cmp.Or(a.Linger, last)
		return nil
	}})
	if errors.Is(err, ErrNoAnswer) && process != nil && process.Wait(ctx) == nil {
		l := *cmp.Or(last, &Linger{})
		l.Open, l.Cut = 0, l.Cut+l.Open
		l.Warnings = append(l.Warnings, "the process ended before Shutdown had returned: its open connections were cut: main must call Shutdown after Done, and wait for it")
		return &l, nil
	}
	if err != nil {
		return nil, err
	}
	if cfg.Wait == WaitExit && process != nil {
		if err := process.Wait(ctx); err != nil {
			return nil, fmt.Errorf("control: drain: %w", err)
		}
	}
	return last, nil
}

// Events calls each with the last events of the process that serves, oldest first, until
// each returns an error, which Events returns. [Client.Follow] waits for later events.
func (c *Client) Events(ctx context.Context, each func(handoff.Event) error) error {
	return c.events(ctx, false, each)
}

// events is Events, and calls each with later events of the same process if follow is
// set.
func (c *Client) events(ctx context.Context, follow bool, each func(handoff.Event) error) error {
	return c.do(ctx, call{op: operate.OpEvents, body: operate.Events{Follow: follow}, answer: func(a answer) error {
		if a.Event == nil {
			return nil
		}
		return each(*a.Event)
	}})
}
