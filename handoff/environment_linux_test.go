package handoff_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
)

// variation is how a service differs from the one of serviceMain in what is
// around it.
type variation struct {
	NoUmask bool  // runs with umask 0
	Allow   []int // uids that Config.Allow lets in

	Executable string   // of Config
	Args       []string // likewise
	Chdir      string   // where it goes after New
	ChdirFirst string   // and before
}

const envVariation = "BATON_TEST_VARIATION"

// varied returns the command line of a process of the service, with v.
func (s *service) varied(v variation) *exec.Cmd {
	s.tb.Helper()
	cmd := s.commandFor("varied")
	cmd.Env = append(cmd.Env, jsonEnv(s.tb, envVariation, v))
	return cmd
}

// variedMain is a service whose environment is varied.
func variedMain([]string) {
	var set settings
	var v variation
	if err := errors.Join(json.Unmarshal([]byte(os.Getenv(envSettings)), &set),
		json.Unmarshal([]byte(os.Getenv(envVariation)), &v)); err != nil {
		fail("settings", err)
	}
	if v.NoUmask {
		unix.Umask(0)
	}
	p := readPlan(set.Dir)
	p.fail(set.Dir, "start", nil)
	go2(v.ChdirFirst)
	cfg := &handoff.Config{
		Mode: set.Mode, Version: "v" + strconv.Itoa(os.Getpid()),
		ControlSocket: filepath.Join(set.Dir, "ctl", "s"),
		PIDFile:       filepath.Join(set.Dir, "pid"),
		Probation:     set.Probation, ReadyTimeout: set.Ready, LingerTimeout: set.Linger,
		Executable: v.Executable, Args: v.Args,
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Name: strconv.Itoa(os.Getpid())}),
		OnEvent: func(e handoff.Event) {
			say(message{Kind: string(e.Kind), Generation: e.Generation, Report: e.Report, Err: e.Reason, Is: sentinelsOf(e.Err)})
		},
		Allow: func(p handoff.Peer) bool { return slices.Contains(v.Allow, p.UID) },
	}
	up, err := handoff.New(cfg)
	if err != nil {
		fail("new", err)
	}
	p.fail(set.Dir, "joined", up)
	go2(v.Chdir)
	addrs, err := listenAll(up, set.Sockets, false)
	if err != nil {
		fail("listen", err)
	}
	p.fail(set.Dir, "listening", up)
	if err := up.Ready(); err != nil {
		fail("ready", err)
	}
	say(message{Kind: "addrs", Addrs: addrs, Generation: up.Generation()})
	<-up.Done()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := up.Shutdown(ctx); err != nil {
		fail("shutdown", err)
	}
	say(message{Kind: "exit", Generation: up.Generation()})
}

// go2 changes the working directory, if dir says where to.
func go2(dir string) {
	if dir == "" {
		return
	}
	if err := os.Chdir(dir); err != nil {
		fail("chdir", err)
	}
}

// copyBinary makes path a program that is this one, in a file of its own. It
// has cp(1) write it: a descriptor of ours that is open for writing could be
// inherited by a process that another test starts at that moment, and the
// program would be busy (Go issue 22315).
func copyBinary(tb testing.TB, path string) {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.Command("cp", "--", exe, path).CombinedOutput(); err != nil {
		tb.Fatalf("cp: %v: %s", err, out)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		tb.Fatal(err)
	}
}
