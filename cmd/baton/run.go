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
		Short: "Run an app under a process that stays, in a container say",
		Long: `Run an app, in any language, below a process that stays what it is, PID 1 of a
container included. It binds the app's sockets and passes them on as systemd does
(LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID; the first is descriptor 3), so that what
waits in them outlives the app, however it ends.

SIGUSR2 upgrades: the app is started anew, from what is at its path by then,
beside the running one, which gets the stop signal when the new one is ready. If
that fails the running one was never stopped. While an upgrade is under way, or the
app is not ready, SIGUSR2 makes another one follow; while the app is down, it is
started at once.
SIGTERM and SIGINT end the app, a second one kills it. SIGHUP, SIGQUIT, SIGUSR1 and
SIGWINCH are passed on to the app.

The app is ready when it has run for a time (--ready-after), unless another way is
chosen. --ready-tcp and --ready-http count only what the new process itself accepts,
so that they can ask the very socket that both have. An app that uses package
handoff says READY=1 (--ready-notify), or is asked (--name, --socket): its open
connections move as its mode has it. One in mode Inherit needs --name.

An app that has ended is started again (--restart): on-failure means unless with
status 0, whenever it has ended; then baton ends with 0 as well. One that gets not
ready counts as failed. SIGUSR2 never ends a running app by a new one that fails.
What is started again is what is at the app's path, unless that has been tried and
was not ready: then it is the program that was ready last. So it is when the app dies
while a new version is not ready yet, which stays for that, beside it. An app that says
READY=1, or is asked, has a second to be ready then, before it is killed. A script, or
what the app's command executes in turn (env), is always what is at its path.
If baton itself is killed, the kernel sends the app the stop signal, but not to a
process that the app has put in its own place (mode Inherit, or baton upgrade), and
what waits in a socket is lost when the app closes it. As PID 1, baton takes all with
it. baton --help lists the exit statuses.`,
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
	flags.BoolVar(&f.NonBlock, "nonblock", false, "pass sockets on non-blocking, as nginx needs them; without, they block, as those of systemd do")
	flags.StringVar(&f.name, "name", "", "the app uses package handoff and this Name, or --socket: ask it whether it is ready, and leave it to its own linger limit")
	flags.BoolVar(&f.Ready.Notify, "ready-notify", false, "the app is ready when it says READY=1 to NOTIFY_SOCKET")
	flags.StringVar(&f.Ready.TCP, "ready-tcp", "", "the app is ready when it accepts connections at `HOST:PORT`")
	flags.StringVar(&f.Ready.HTTP, "ready-http", "", "the app is ready when it answers at `URL` with a status below 400")
	flags.DurationVar(&f.Ready.After, "ready-after", 0, "the app is ready when it has run for this `time`, or has said READY=1 (default 2s)")
	flags.DurationVar(&f.ReadyTimeout, "ready-timeout", f.ReadyTimeout, "give an app up that is not ready after this `time`")
	flags.StringVar(&f.StopSignal, "stop-signal", f.StopSignal, "`signal` that ends the app gracefully")
	flags.DurationVar(&f.StopTimeout, "stop-timeout", f.StopTimeout, "kill an app that has not ended this `time` after the stop signal, or what it asks for (EXTEND_TIMEOUT_USEC)")
	flags.StringVar(&f.restart, "restart", string(f.Restart), "start the app again when it has ended: "+strings.Join(supervisor.Restarts(), ", "))
	flags.DurationVar(&f.RestartDelay, "restart-delay", f.RestartDelay, "longest `time` before the first restart; it doubles with each, and a random part is taken off")
	flags.DurationVar(&f.RestartMaxDelay, "restart-max-delay", f.RestartMaxDelay, "longest `time` before any restart")
	flags.DurationVar(&f.RestartReset, "restart-reset", f.RestartReset, "begin with the first delay again when the app was ready for this `time`")
	flags.IntVar(&f.RestartLimit, "restart-limit", 0, "give up after so many restarts in a row (0: never)")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log signals, orphans and what the app says of itself, too")
	must(cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions(supervisor.Restarts(), cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("listen", cobra.NoFileCompletions))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.Args = args
		return a.supervise(f, cmd.ErrOrStderr())
	}
	return cmd
}

// supervise runs the app until it is done. The signals of the process are the
// supervisor's: no context ends it.
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

// runError makes a configuration that makes no sense wrong usage.
func runError(err error) error {
	if errors.Is(err, supervisor.ErrConfig) {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return err
}
