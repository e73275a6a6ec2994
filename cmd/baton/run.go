package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/seed-11c92bf9/baton/cmd/baton/internal/supervisor"
)

// runFlags are the flags of baton run.
type runFlags struct {
	*supervisor.Config
	listen  []string
	name    string
	restart string
	verbose bool
}

func (a *app) runCommand() *cobra.Command {
	f := &runFlags{Config: supervisor.Default()}
	cmd := &cobra.Command{
		Use:   "run [flags] -- APP [ARG...]",
		Short: "Run an app below a supervisor that keeps its sockets",
		Long: `Run an app, in any language, below a process that keeps the app's sockets; it can be
PID 1 of a container. It binds the sockets and passes them on as systemd does
(LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID; the first is descriptor 3). Connections that
wait in a queue outlive the app, however it ends.

SIGUSR2 upgrades: baton starts the program at the app's path beside the running app,
and sends the running app the stop signal when the new one is ready. If the new one
fails, the running app serves on. While an upgrade is in progress or the app is not
ready, SIGUSR2 queues one more upgrade; while the app is down, SIGUSR2 starts it at
once. SIGTERM and SIGINT end the app; a second one kills it. SIGHUP, SIGQUIT,
SIGUSR1 and SIGWINCH are forwarded to the app.

By default the app is ready when it has run for some time (--ready-after).
--ready-tcp and --ready-http probe it instead. They count only connections that the
new process itself accepts, so they can probe the socket that both processes share.
An app that uses package handoff sends READY=1 (--ready-notify), or baton asks its
control socket (--name, --socket). Its open connections move as in its mode. An app in
mode Inherit needs --name or --socket.

When the app ends, baton starts it again as --restart says. With on-failure, an app
whose exit status is 0 ends baton too, with 0. An app that is not ready in time counts
as failed. A restart starts the program at the app's path. If that program has been
started before and was never ready, baton starts the program that was ready last. If
the command is a script, or executes another program (env), baton always starts what is
at the path.

If the app dies in an upgrade, before its next version is ready, baton starts the
program that was ready last, and the next version keeps running beside it. But if the
app has sent READY=1, or baton asks its control socket, the next version may have the
app's sockets: it gets one more second to be ready, and is killed after that.

If baton itself is killed, the kernel sends the stop signal to the app. It sends none
to a successor that the app has started itself (mode Inherit, or baton upgrade).
Connections in a queue are lost when the app closes the socket. If baton is PID 1, all
processes of the container end with it. baton --help lists the exit statuses.`,
		Example: `  baton run --listen tcp://:8080 --ready-tcp 127.0.0.1:8080 -- python3 app.py
  baton run --listen web=tcp://:8080 --name api -- /usr/local/bin/api
  baton run --listen tcp://:80 --nonblock --stop-signal QUIT -- env 'NGINX=3;' nginx -g 'daemon off;'`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return fmt.Errorf("%w: no app: baton run [flags] -- APP [ARG...]", errUsage)
			case cmd.ArgsLenAtDash() != 0:
				return fmt.Errorf("%w: put -- before the app: baton run [flags] -- APP [ARG...]", errUsage)
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.listen, "listen", "l", nil, "bind `[NAME=]ADDRESS` and pass it on, in order: tcp://HOST:PORT, udp://HOST:PORT, unix:/PATH, unix:@ABSTRACT; also tcp4, tcp6, udp4, udp6, unixgram, unixpacket")
	flags.BoolVar(&f.NonBlock, "nonblock", false, "pass sockets in non-blocking mode, as nginx needs them; the default is blocking, as systemd's are")
	flags.StringVar(&f.name, "name", "", "Name of an app that uses package handoff: baton asks the app's control socket whether it is ready, and leaves the end of its connections to its own linger limit; or use --socket")
	flags.BoolVar(&f.Ready.Notify, "ready-notify", false, "the app is ready when it says READY=1 to NOTIFY_SOCKET")
	flags.StringVar(&f.Ready.TCP, "ready-tcp", "", "the app is ready when it accepts connections at `HOST:PORT`")
	flags.StringVar(&f.Ready.HTTP, "ready-http", "", "the app is ready when it answers at `URL` with a status below 400")
	flags.DurationVar(&f.Ready.After, "ready-after", 0, "the app is ready when it has run for this `time`, or has said READY=1 (default 2s)")
	flags.DurationVar(&f.ReadyTimeout, "ready-timeout", f.ReadyTimeout, "end an app that is not ready after this `time`")
	flags.StringVar(&f.StopSignal, "stop-signal", f.StopSignal, "`signal` that ends the app gracefully")
	flags.DurationVar(&f.StopTimeout, "stop-timeout", f.StopTimeout, "kill an app that has not ended within this `time` after the stop signal; the app can ask for more (EXTEND_TIMEOUT_USEC)")
	flags.StringVar(&f.restart, "restart", string(f.Restart), "start the app again when it has ended: "+strings.Join(supervisor.Restarts(), ", "))
	flags.DurationVar(&f.RestartDelay, "restart-delay", f.RestartDelay, "longest `time` before the first restart; it doubles with each restart, and baton waits a random part of it less")
	flags.DurationVar(&f.RestartMaxDelay, "restart-max-delay", f.RestartMaxDelay, "longest `time` before any restart")
	flags.DurationVar(&f.RestartReset, "restart-reset", f.RestartReset, "reset the delay when the app was ready for this `time`")
	flags.IntVar(&f.RestartLimit, "restart-limit", 0, "give up after this number of restarts in a row (0: never)")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "also log signals, orphans and the app's own status messages")
	must(cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions(supervisor.Restarts(), cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("listen", cobra.NoFileCompletions))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.Args = args
		return a.supervise(f, cmd.ErrOrStderr())
	}
	return cmd
}

// supervise runs the app until it has ended for good. Signals end it; it needs no
// context.
func (a *app) supervise(f *runFlags, log io.Writer) error {
	for _, text := range f.listen {
		s, err := supervisor.ParseSocket(text)
		if err != nil {
			return runError(err)
		}
		f.Listen = append(f.Listen, s)
	}
	if f.name != "" || a.socket != "" {
		var args []string
		if f.name != "" {
			args = []string{f.name}
		}
		var err error
		if f.Ready.Control, err = a.client(args); err != nil {
			return err
		}
	}
	f.Restart = supervisor.Restart(f.restart)
	level := hclog.Info
	if f.verbose {
		level = hclog.Debug
	}
	f.Logger = hclog.New(&hclog.LoggerOptions{Name: "baton", Level: level, Output: log, JSONFormat: a.json, TimeFormat: "2006-01-02T15:04:05.000Z07:00"})
	s, err := supervisor.New(f.Config)
	if err != nil {
		return runError(err)
	}
	return s.Run()
}

// runError reports an invalid configuration as wrong usage.
func runError(err error) error {
	if errors.Is(err, supervisor.ErrConfig) {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return err
}
