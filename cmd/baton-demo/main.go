package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker: -ldflags "-X main.version=v2".
var version = "dev"

const usage = `baton-demo shows a service that is replaced under load without losing a connection.

usage: baton-demo COMMAND [flags]

  demo    build several versions, run service and clients, upgrade under load
  serve   run the service
  load    run the clients
  version print the version

baton-demo COMMAND -h lists a command's flags.
`

// errUsage says that the command line is wrong. The reason was already printed.
var errUsage = errors.New("usage")

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		if !errors.Is(err, errShown) {
			fmt.Fprintln(os.Stderr, "baton-demo:", err)
		}
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return errUsage
	}
	switch cmd, rest := args[0], args[1:]; cmd {
	case "demo":
		// Ctrl-C ends the demo in order: its processes are not in the terminal's
		// process group. A closed standard output ends it too.
		ctx, stop := signal.NotifyContext(context.Background(), interrupts()...)
		defer stop()
		return demoCommand(ctx, rest, stdout, stderr)
	case "serve":
		return serveCommand(rest, stdout, stderr)
	case "load":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return loadCommand(ctx, rest, os.Stdin, stdout, stderr)
	case "version":
		_, err := fmt.Fprintln(stdout, version)
		return err
	case "help", "-h", "-help", "--help":
		_, err := fmt.Fprint(stdout, usage)
		return err
	default:
		fmt.Fprintf(stderr, "baton-demo: unknown command %q\n\n%s", cmd, usage)
		return errUsage
	}
}

// parse parses flags, and refuses further arguments.
func parse(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(fs.Output(), "baton-demo %s: unexpected argument %q\n", fs.Name(), fs.Arg(0))
		return errUsage
	}
	return nil
}
