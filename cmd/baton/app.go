package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/terminal"
)

// app is shared by all commands.
type app struct {
	out    *output
	screen *terminal.Screen

	json    bool
	plain   bool
	socket  string
	sockets string // pattern of this user's control sockets

	tty bool // standard output is a terminal, also where the output is plain

	patience time.Duration // longest time without a message from the server
}

// silenceLimit is longer than a working server stays silent: while it waits for a
// successor to confirm a commit, it sends nothing for some seconds.
const silenceLimit = 30 * time.Second

func newApp(stdout io.Writer) *app {
	out := &output{w: stdout}
	return &app{out: out, tty: terminal.Is(stdout), screen: terminal.New(stdout, out), sockets: control.Path("*"), patience: silenceLimit}
}

// about is the introduction of the help.
const about = `Baton manages a running server that uses package handoff: it shows its status,
upgrades it to its next version, rolls an upgrade back, and ends it. baton run runs
any app, also one that does not use package handoff.

NAME is the Name in the server's configuration. Without it, and without --socket,
it is the only server that this user runs. Root names another user's server by
--socket: /run/user/UID/baton/NAME/control.sock or /tmp/baton-UID/NAME/control.sock.`

// command returns the whole tree of commands.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "baton",
		Short:         "Replace running servers without losing a connection",
		Long:          about + "\n\n" + exitText(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
				return fmt.Errorf("%w: unknown command %q: do you mean %s?", errUsage, args[0], strings.Join(like, ", "))
			}
			return fmt.Errorf("%w: unknown command %q: see baton --help", errUsage, args[0])
		},
		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(*cobra.Command, []string) {
			if a.plain || a.json {
				a.screen = terminal.Sized(a.out, 0, 0)
			}
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w: see %s --help", errUsage, err, cmd.CommandPath())
	})
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.PersistentFlags().BoolVar(&a.plain, "plain", false, "no colours, no live progress, also on a terminal")
	root.PersistentFlags().StringVar(&a.socket, "socket", "", "`path` of the control socket, instead of NAME")
	root.AddCommand(a.statusCommand(), a.upgradeCommand(), a.rollbackCommand(), a.drainCommand(), a.eventsCommand(), a.runCommand(), a.doctorCommand(), a.manCommand())
	root.SetOut(a.out) // cobra's completion command writes there
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.Args = cobra.ArbitraryArgs
		completion.RunE = func(_ *cobra.Command, args []string) error {
			return fmt.Errorf("%w: no completions for shell %q, only for bash, fish, powershell and zsh: see baton completion --help", errUsage, strings.Join(args, " "))
		}
	}
	return root
}

// leaf completes a command that talks to one server.
func (a *app) leaf(cmd *cobra.Command, do func(ctx context.Context, c *control.Client) error) *cobra.Command {
	cmd.Use += " [NAME]"
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return fmt.Errorf("%w: one server at a time, not %q", errUsage, args)
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client(args)
		if err != nil {
			return err
		}
		return a.others(do(cmd.Context(), c), args)
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.names(), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// status asks a server for its status, within a time limit.
func (a *app) status(ctx context.Context, c *control.Client) (*handoff.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.patience, errSilent)
	defer cancel()
	return c.Status(ctx)
}

// quote has a terminal show what a server sends, each character of it, instead of obeying
// it: v leads to strings. In a pipe and in JSON they stay as they are.
func (a *app) quote(v any) {
	if a.tty && !a.json {
		terminal.QuoteAll(v)
	}
}

// answered returns a context that ends when the server has sent no message for too
// long, unless received is called first. The caller must call end.
func (a *app) answered(ctx context.Context) (_ context.Context, received, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	silence := time.AfterFunc(a.patience, func() { cancel(errSilent) })
	return ctx, func() { silence.Stop() }, func() {
		silence.Stop()
		cancel(nil)
	}
}

// names returns the names of this user's servers, killed ones included.
func (a *app) names() []string {
	found, err := filepath.Glob(a.sockets)
	if err != nil {
		return nil // the pattern is a constant
	}
	var names []string
	for _, path := range found {
		names = append(names, filepath.Base(filepath.Dir(path)))
	}
	return names
}

// live returns those of the names at whose control socket a process answers.
func (a *app) live(names []string) []string {
	var live []string
	for _, name := range names {
		c, err := net.Dial("unix", a.path(name))
		if err == nil {
			_ = c.Close() // it has asked for nothing
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			live = append(live, name)
		}
	}
	return live
}

// path returns the path of the control socket of this user's server of that name.
func (a *app) path(name string) string { return strings.Replace(a.sockets, "*", name, 1) }

// client returns a client for the server that the arguments name.
func (a *app) client(args []string) (*control.Client, error) {
	switch {
	case a.socket != "" && len(args) > 0:
		return nil, fmt.Errorf("%w: either --socket or a name, not both", errUsage)
	case a.socket != "":
		return client("", a.socket)
	case len(args) > 0:
		if args[0] == "" || strings.ContainsAny(args[0], "/*?[") {
			return nil, fmt.Errorf("%w: %q is no name of a server: use --socket for a path", errUsage, args[0])
		}
		return client(args[0], a.path(args[0]))
	}
	names := a.names()
	if live := a.live(names); len(live) > 0 {
		names = live
	}
	switch len(names) {
	case 0:
		return nil, fmt.Errorf("%w at %s: start the server, or use --socket", control.ErrNoServer, a.sockets)
	case 1:
		return client(names[0], a.path(names[0]))
	default:
		return nil, fmt.Errorf("%w: which server? Name one of these: %s", errUsage, strings.Join(names, ", "))
	}
}

// others adds the names of this user's servers to the error that there is none of the name
// in args.
func (a *app) others(err error, args []string) error {
	if len(args) == 0 || !errors.Is(err, control.ErrNoServer) {
		return err
	}
	if live := a.live(a.names()); len(live) > 0 {
		return fmt.Errorf("%w; this user's servers are: %s", err, strings.Join(live, ", "))
	}
	return err
}

func client(name, socket string) (*control.Client, error) {
	c, err := control.New(&control.Config{Name: name, Socket: socket})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return c, nil
}

// absolute returns the absolute path of an executable. It checks here that the file
// exists, since the server would report that later.
func absolute(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("%w: no program at %s", errUsage, path)
	case err != nil:
		return "", err
	case fi.IsDir():
		return "", fmt.Errorf("%w: %s is no program but a folder", errUsage, path)
	case fi.Mode().Perm()&0o111 == 0:
		return "", fmt.Errorf("%w: %s is no program: if it should be, chmod +x", errUsage, path)
	}
	return path, nil
}
