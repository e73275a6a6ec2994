package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/seed-11c92bf9/baton/cmd/baton/internal/supervisor"
	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/terminal"
)

func main() { os.Exit(int(run(os.Args[1:], os.Stdout, os.Stderr))) }

// run executes the command line.
func run(args []string, stdout, stderr io.Writer) exit {
	if len(args) > 0 && args[0] == supervisor.ExecArg { // started by baton run
		return exit(supervisor.Exec(args[1:]))
	}
	// SIGINT stays ignored in the background of a shell script.
	ctx, stop := signal.NotifyContext(context.Background(), slices.DeleteFunc([]os.Signal{syscall.SIGTERM, os.Interrupt}, signal.Ignored)...)
	defer stop()
	a := newApp(stdout)
	root := a.command()
	root.SetArgs(args)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	a.screen.Clear()
	if err == nil || errors.Is(a.out.err, err) {
		err = a.out.err // the output was not written
	}
	status, name := statusOf(err)
	if status == exitDone || status == exitProblem { // already shown
		return status
	}
	if a.json || errors.Is(err, errUsage) && asksJSON(args) {
		a.printJSON(map[string]any{"error": errorJSON(err, status, name)})
	}
	fmt.Fprintln(stderr, terminal.New(stderr, stderr).Colour(terminal.Red, "baton:"), shownOn(stderr, oneLine(err)))
	var ue *handoff.UpgradeError
	if errors.As(err, &ue) {
		for _, line := range ue.Stderr {
			fmt.Fprintln(stderr, "  |", shownOn(stderr, line))
		}
	}
	return status
}

// shownOn returns what a server has sent as w shows it: quoted if that is a terminal.
func shownOn(w io.Writer, text string) string {
	if terminal.Is(w) {
		return terminal.Quote(text)
	}
	return text
}

// asksJSON reports whether --json is among the arguments. A wrong flag ended the
// parsing before the end.
func asksJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i] // the rest belongs to an app
	}
	return slices.Contains(args, "--json")
}

// oneLine formats an error as one line.
func oneLine(err error) string {
	var ue *handoff.UpgradeError
	text := err.Error()
	switch {
	case errors.As(err, &ue):
		text = fmt.Sprintf("the upgrade failed, the old version serves on: %v", ue.Err)
		if why, ends := strings.CutSuffix(plain(ue.Err.Error()), ": "+plain(handoff.ErrClosed.Error())); ends {
			text = "the upgrade failed, and the server ends: " + why
		}
	case errors.Is(err, errUsage):
		text = strings.TrimPrefix(text, errUsage.Error()+": ")
	}
	return plain(text)
}

// plain formats a text as one line, without the names of packages.
func plain(text string) string {
	return strings.Join(strings.Fields(strings.NewReplacer("handoff: ", "", "control: ", "", "configuration: ", "").Replace(text)), " ")
}

// failure is an error in JSON.
type failure struct {
	Kind    string          `json:"kind"`
	Exit    exit            `json:"exit"`
	Text    string          `json:"text"`
	Outcome handoff.Outcome `json:"outcome,omitempty"` // of an upgrade
	PID     int             `json:"pid,omitempty"`
	Stderr  []string        `json:"stderr,omitempty"`
}

func errorJSON(err error, status exit, name string) failure {
	f := failure{Kind: name, Exit: status, Text: oneLine(err)}
	var ue *handoff.UpgradeError
	if errors.As(err, &ue) {
		f.Outcome, f.PID, f.Stderr = ue.Outcome, ue.PID, ue.Stderr
	}
	return f
}

// output is standard output, whose writes may fail: on a full disk, for example.
type output struct {
	w   io.Writer
	err error // the first one
}

func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	if err != nil {
		o.err = fmt.Errorf("write standard output: %w", err)
		if errors.Is(err, syscall.ENOSPC) {
			o.err = fmt.Errorf("write standard output: the disk is full: free some space: %w", err)
		}
	}
	return n, err
}

// shown ends a command that has changed something. If the output could not be written,
// its error says that the change was made.
func (a *app) shown(done string) error {
	if a.out.err == nil {
		return nil
	}
	return fmt.Errorf("%s, but the result could not be shown: %w", done, a.out.err)
}

// printJSON prints a value as one line of JSON.
func (a *app) printJSON(v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)                        // it is of our own types
	_, _ = a.out.Write(visible(b.Bytes())) // a.out keeps the error
}

// visible has JSON show the characters that a terminal obeys, of which encoding/json
// leaves those from U+007F on, in a form that means the same.
func visible(text []byte) []byte {
	var b []byte
	for _, r := range string(text) {
		if r == '\n' || unicode.IsPrint(r) {
			b = utf8.AppendRune(b, r)
			continue
		}
		for _, u := range utf16.Encode([]rune{r}) {
			b = fmt.Appendf(b, `\u%04x`, u)
		}
	}
	return b
}
