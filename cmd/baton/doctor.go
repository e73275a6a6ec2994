package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/procs"
	"github.com/seed-11c92bf9/baton/internal/terminal"
)

// verdict rates a finding.
type verdict string

const (
	ok      verdict = "ok"
	note    verdict = "note"    // a feature is missing that nothing needs
	warning verdict = "warning" // something works worse than it could
	problem verdict = "problem" // something does not work
)

// finding is the result of one check.
type finding struct {
	Check   string  `json:"check"`
	Verdict verdict `json:"verdict"`
	Found   string  `json:"found"`
	Advice  string  `json:"advice,omitempty"` // what to change, and why
}

// check examines one thing.
type check struct {
	name string
	look func() finding
}

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check what this machine allows, and say what to change",
		Long: `Check what the kernel, this user's limits and the folders of the control sockets
allow, and say what to change and why. With a NAME or --socket, check that server
as well. The exit status is 14 if there is a problem; warnings and notes don't count.

It listens briefly on a loopback address, and changes nothing.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%w: one server at a time, not %q", errUsage, args)
			}
			return nil
		},
	}
	cmd.Use += " [NAME]"
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.names(), cobra.ShellCompDirectiveNoFileComp
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		checks := machineChecks(cmd.Context())
		folder := filepath.Dir(filepath.Dir(a.sockets))
		checks = append(checks, check{"folder of the control sockets", func() finding { return checkFolder(folder) }})
		sockets := a.sockets
		if a.socket != "" {
			sockets = a.socket
		}
		checks = append(checks, check{"paths of the control sockets", func() finding { return checkPaths(sockets) }})
		if a.socket != "" || len(args) > 0 || len(a.names()) == 1 {
			c, err := a.client(args)
			if err != nil {
				return err
			}
			checks = append(checks, check{"folder of the control socket", func() finding { return checkSocketFolder(filepath.Dir(c.Socket())) }})
			st, err := a.status(cmd.Context(), c)
			checks = append(checks, check{"server", func() finding { return checkServer(st, err) }})
			if err == nil {
				checks = append(checks, check{"open files of the server", func() finding { return checkServerFiles(st.PID) }})
			}
		}
		return a.examine(checks)
	}
	return cmd
}

// examine runs all checks and shows their findings.
func (a *app) examine(checks []check) error {
	findings := []finding{}
	sick := false
	for _, c := range checks {
		f := c.look()
		f.Check = c.name
		sick = sick || f.Verdict == problem
		findings = append(findings, f)
		if a.json {
			continue
		}
		a.quote(&f) // a server's status, or error
		head := a.screen.Colour(colourOf(f.Verdict), fmt.Sprintf("%-7s", f.Verdict))
		for _, text := range []string{f.Check + ": " + f.Found, f.Advice} {
			if text == "" {
				continue
			}
			for _, line := range a.screen.Wrap(9, text) {
				a.screen.Line("%s  %s", head, line)
				head = "       "
			}
		}
	}
	if a.json {
		a.printJSON(map[string]any{"ok": !sick, "findings": findings})
	}
	if sick {
		return errProblem
	}
	return nil
}

func colourOf(v verdict) terminal.Colour {
	switch v {
	case ok:
		return terminal.Green
	case problem:
		return terminal.Red
	case warning:
		return terminal.Yellow
	}
	return terminal.Bold
}

// checkFolder examines the folder with the servers' folders.
func checkFolder(path string) finding {
	fi, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return finding{Verdict: ok, Found: path + " does not exist yet: the first server creates it"}
	case err != nil:
		return finding{Verdict: problem, Found: err.Error(), Advice: "this user's servers can't create their control sockets there: set Config.ControlSocket, or change the folder"}
	case !fi.IsDir():
		return finding{Verdict: problem, Found: path + " is no folder", Advice: "remove it: servers create their folders there"}
	case fi.Mode().Perm()&0o002 != 0 && fi.Mode()&os.ModeSticky == 0:
		return finding{Verdict: problem, Found: fmt.Sprintf("%s has mode %#o", path, fi.Mode().Perm()), Advice: "any user could replace a server's folder: chmod o-w " + path}
	}
	return roomFor(path)
}

// checkPaths looks for servers that no tool reaches: the path of the control socket was
// removed, or leads to another server. pattern is that of the paths.
func checkPaths(pattern string) finding {
	servers := make(map[string][]int)
	for _, l := range procs.Listeners(func(path string) bool { ok, _ := filepath.Match(pattern, path); return ok }) {
		servers[l.Path] = append(servers[l.Path], l.PID)
	}
	for path, pids := range servers {
		_, err := os.Lstat(path)
		switch {
		case os.IsNotExist(err):
			return finding{
				Verdict: problem, Found: fmt.Sprintf("pid %d serves %s, and that path was removed", pids[0], path),
				Advice: "no tool or successor reaches that server: it makes the path again within seconds, or its log says why not; its upgrade signal (SIGUSR2) still works",
			}
		case len(pids) > 1:
			return finding{
				Verdict: problem, Found: fmt.Sprintf("pids %s serve %s, which leads to one of them", strings.Trim(fmt.Sprint(pids), "[]"), path),
				Advice: "no tool or successor reaches the other one: end it, or give it another Name",
			}
		}
	}
	return finding{Verdict: ok, Found: "each leads to its server"}
}

// checkSocketFolder examines the folder of one control socket.
func checkSocketFolder(path string) finding {
	fi, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return finding{Verdict: problem, Found: path + " is not there", Advice: "no server has created its control socket there: check the name, or start the server"}
	case os.IsPermission(err):
		return finding{Verdict: problem, Found: err.Error(), Advice: "run this command as the server's user or as root"}
	case err != nil:
		return finding{Verdict: problem, Found: err.Error()}
	case fi.Mode().Perm()&0o077 != 0:
		return finding{Verdict: problem, Found: fmt.Sprintf("%s has mode %#o", path, fi.Mode().Perm()), Advice: "others could reach the control socket, and the server's next start refuses that: chmod 700 " + path}
	}
	return roomFor(path)
}

// checkServer examines a server's status.
func checkServer(st *handoff.Status, err error) finding {
	if err != nil {
		return finding{Verdict: problem, Found: oneLine(err)}
	}
	f := finding{Verdict: ok, Found: fmt.Sprintf("pid %d, generation %d, mode %v, %s", st.PID, st.Generation, st.Mode, st.State)}
	_, statErr := os.Stat(st.Executable)
	switch {
	case st.NoUpgrade != "":
		f.Verdict = problem
		f.Advice = "no upgrade can begin: " + plain(st.NoUpgrade)
	case len(st.Warnings) > 0:
		f.Verdict = warning
		f.Advice = plain(strings.Join(st.Warnings, "; "))
	case os.IsNotExist(statErr):
		f.Verdict = warning
		f.Advice = "an upgrade starts " + st.Executable + ", which does not exist (as seen from here): install the next version at that path, or use --exec"
	case len(st.Lingering) > 3:
		f.Verdict = warning
		f.Advice = fmt.Sprintf("%d predecessors linger: connections take long to end; see LingerTimeout and MaxLingering", len(st.Lingering))
	}
	return f
}
