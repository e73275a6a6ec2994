package handoff_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
)

// variation is what is unusual about the environment of a service, or what it does there.
type variation struct {
	NoUmask bool  // runs with umask 0
	Allow   []int // uids that Config.Allow lets in
	Drops   int   // effective uid of a service of root's that is ready, 0 means root's

	Executable string   // of Config
	Args       []string // likewise
	Chdir      string   // where it goes after New
	Setenv     string   // a variable that it sets before New
	NoSignals  bool     // no upgrade signals: SIGUSR2 is the program's own
	Taken      bool     // in mode Inherit, another has taken its conversation
	Reopen     bool     // in every second generation, sockets are closed and bound anew

	// Children has it start processes all the time, each of which says what it
	// has inherited.
	Children bool
	// Nested has it start a process at each step that is a service of its own.
	Nested bool

	// Leaks is a file that it opens all the time without close-on-exec, from New on. It
	// says before New how many of them it has got, and after New how many the next
	// process would get.
	Leaks string

	Many      int  // listeners, see listenMany
	States    int  // state blobs
	StateSize int  // bytes of each
	Unchecked bool // their content is not compared
}

const envVariation = "BATON_TEST_VARIATION"

// varied returns the command line of a process of the service, with v.
func (s *service) varied(v variation) *exec.Cmd {
	s.tb.Helper()
	cmd := s.command()
	cmd.Env = append(cmd.Env, jsonEnv(s.tb, envVariation, v))
	return cmd
}

// readVariation returns the variation of this process: the zero one is none.
func readVariation() (v variation) {
	text := os.Getenv(envVariation)
	if text == "" {
		return v
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		fail("variation", err)
	}
	return v
}

// become sets the effective uid of a service that drops root's.
func (v *variation) become(uid int) {
	if v.Drops == 0 {
		return
	}
	if err := syscall.Setresuid(-1, uid, -1); err != nil {
		fail("uid", err)
	}
}

// begin runs before New.
func (v *variation) begin(cfg *handoff.Config) {
	if v.NoUmask {
		unix.Umask(0)
	}
	if v.Leaks != "" {
		say(message{Kind: "leaked", Leaked: opened(v.Leaks, false)})
	}
	if v.Setenv != "" {
		if err := os.Setenv(v.Setenv, "1"); err != nil {
			fail("environment", err)
		}
	}
	if v.Taken && os.Getenv(handoff.EnvTableflip) != "" {
		if err := handoff.TakeConversation(); err != nil {
			fail("conversation", err)
		}
	}
	cfg.Executable, cfg.Args = v.Executable, v.Args
	cfg.Allow = func(p handoff.Peer) bool { return slices.Contains(v.Allow, p.UID) }
	if v.NoSignals {
		cfg.UpgradeSignals = []os.Signal{}
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGUSR2)
		go func() { // ends with the process
			for range ch {
				say(message{Kind: "usr2"})
			}
		}()
	}
}

// joined runs after New. The returned function waits for the children.
func (v *variation) joined(up *handoff.Upgrader) (wait func()) {
	if v.Leaks != "" {
		say(message{Kind: "inheritable", Leaked: opened(v.Leaks, true)})
		go leak(up, v.Leaks)
	}
	var children sync.WaitGroup
	if v.Children {
		startChild("inheritor")
		children.Go(func() { // ends with the service
			for {
				select {
				case <-up.Done():
					return
				default:
					startChild("inheritor")
				}
			}
		})
	}
	if v.Nested {
		startChild("nested")
	}
	return func() {
		children.Wait()
		if v.Children {
			startChild("inheritor")
		}
	}
}

// listen runs before the service listens; addrs are its addresses besides the
// service's.
func (v *variation) listen(up *handoff.Upgrader, set settings) (addrs map[string]string) {
	if v.Chdir != "" {
		if err := os.Chdir(v.Chdir); err != nil {
			fail("chdir", err)
		}
	}
	if v.Reopen && up.Generation()%2 == 0 {
		for _, socket := range set.Sockets {
			network, address, _ := strings.Cut(socket, " ")
			ln, err := up.Listen(context.Background(), network, address)
			if err == nil {
				err = ln.Close()
			}
			if err != nil {
				fail("reopen", err)
			}
		}
	}
	if v.Many > 0 {
		var err error
		if addrs, err = listenMany(up, set.Dir, v.Many); err != nil {
			fail("listen", err)
		}
	}
	if v.States > 0 {
		if err := passStates(up, *v); err != nil {
			fail("states", err)
		}
	}
	return addrs
}

// envRole names the program that a child of a service is, see startChild.
const envRole = "BATON_TEST_ROLE"

// startChild runs this program in another role, as any program starts another,
// and passes on what it says.
func startChild(role string) {
	exe, err := os.Executable()
	if err != nil {
		fail(role, err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envRole+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	m := message{Kind: role}
	if err != nil {
		m.Err = fmt.Sprintf("%v: ", err)
	}
	m.Err += string(out)
	say(m)
}

// inheritorMain prints what it has inherited and should not.
func inheritorMain() {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		fmt.Print(err)
	}
	for _, n := range names {
		target, err := os.Readlink("/proc/self/fd/" + n.Name())
		if err != nil || ownFile(target) || slices.Contains([]string{"0", "1", "2"}, n.Name()) {
			continue // the folder's own is closed
		}
		fmt.Printf("descriptor %s is %s;", n.Name(), target)
	}
	for _, name := range []string{handoff.EnvConversation, handoff.EnvTableflip} {
		if v, ok := os.LookupEnv(name); ok {
			fmt.Printf("environment has %s=%s;", name, v)
		}
	}
}

// ownFile reports whether a descriptor is the Go runtime's own: its poller, and
// since Go 1.25 the limits that it reads again and again.
func ownFile(target string) bool {
	return target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]" || strings.HasPrefix(target, "/sys/fs/cgroup/")
}

// nestedMain is a service of its own in mode Inherit: it must not take itself
// for a successor. It prints what is wrong.
func nestedMain() {
	up, err := handoff.New(&handoff.Config{UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{}})
	if err != nil {
		fmt.Print(err)
		return
	}
	if up.Generation() != 1 {
		fmt.Printf("generation %d", up.Generation())
	}
	ln, err := up.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Print(err)
		return
	}
	if err := errors.Join(up.Ready(), ln.Close(), up.Close()); err != nil {
		fmt.Print(err)
	}
}
