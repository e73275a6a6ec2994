package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
)

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show the events of a server",
		Long: `Show the last events of a server, a line each. With --follow continue with new
events, also those of its successors, until the last process has ended.`,
		Example: "  baton events api --follow --json",
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "continue with new events until interrupted")
	return a.leaf(cmd, func(ctx context.Context, c *control.Client) error {
		show := func(e handoff.Event) error {
			a.showEvent(e)
			return a.out.err
		}
		if !follow {
			ctx, _, end := a.answered(ctx)
			defer end()
			return c.Events(ctx, show)
		}
		// A live server may have no event for any length of time, so silence is no
		// error here.
		if _, err := a.status(ctx, c); err != nil {
			if interrupted(ctx, err) {
				return nil
			}
			return err
		}
		if err := c.Follow(ctx, show); !interrupted(ctx, err) {
			return err
		}
		return nil
	})
}

func (a *app) showEvent(e handoff.Event) {
	if a.json {
		a.printJSON(e)
		return
	}
	a.quote(&e)
	more := ""
	if r := e.Report; r != nil && r.Successor.PID != 0 && r.Successor.PID != e.PID {
		more = fmt.Sprintf("  successor %d", r.Successor.PID)
	}
	if e.Reason != "" {
		more += "  " + plain(e.Reason)
	}
	a.screen.Line("%s  pid %-7d generation %-4d %-16s%s", e.Time.Local().Format(time.DateTime+".000"), e.PID, e.Generation, e.Kind, more)
}
