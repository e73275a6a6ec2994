package handoff_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudflare/tableflip"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// plainMain is a service on tableflip alone, as its documentation shows one.
// Its generation in answers is 100. What the plan says turns a process of the
// line into a Baton service, or back: the binary is replaced, so to say.
func plainMain(args []string) {
	var set settings
	if err := json.Unmarshal([]byte(os.Getenv(envSettings)), &set); err != nil {
		fail("settings", err)
	}
	if _, err := os.Stat(filepath.Join(set.Dir, "baton")); err == nil {
		serviceMain(args)
		return
	}
	upg, err := tableflip.New(tableflip.Options{PIDFile: filepath.Join(set.Dir, "pid")})
	if err != nil {
		fail("new", err)
	}
	defer upg.Stop()
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGUSR2, syscall.SIGTERM)
	go func() {
		for s := range sig {
			if s == syscall.SIGTERM {
				upg.Stop()
				return
			}
			err := upg.Upgrade()
			for try := 0; err != nil && err.Error() == "parent hasn't exited" && try < 500; try++ {
				<-time.After(10 * time.Millisecond) // it is ready; tableflip has yet to notice
				err = upg.Upgrade()
			}
			if err != nil {
				say(message{Kind: "upgrade-failed", Err: err.Error()})
			} else {
				say(message{Kind: "committed"})
			}
		}
	}()
	addrs := make(map[string]string)
	var serving sync.WaitGroup // what was begun is answered before the end
	var closers []io.Closer
	for i, s := range set.Sockets {
		network, address, _ := strings.Cut(s, " ")
		if network == "udp" {
			pc, err := upg.ListenPacket(network, address)
			if err != nil {
				fail("listen", err)
			}
			addrs[fmt.Sprintf("%d %s", i, s)] = pc.LocalAddr().String()
			serving.Go(func() {
				buf := make([]byte, 2048)
				for {
					n, addr, err := pc.ReadFrom(buf)
					if err != nil {
						return
					}
					_, _ = pc.WriteTo(fmt.Appendf(nil, "100 %s", buf[:n]), addr)
				}
			})
			// Closed would be too early for an answer: a deadline ends the reading.
			closers = append(closers, closerFunc(func() error { return pc.SetReadDeadline(time.Unix(1, 0)) }))
			continue
		}
		ln, err := upg.Listen(network, address)
		if err != nil {
			fail("listen", err)
		}
		addrs[fmt.Sprintf("%d %s", i, s)] = ln.Addr().String()
		serving.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				serving.Go(func() {
					defer c.Close()
					line, err := bufio.NewReader(c).ReadString('\n')
					if err == nil {
						_, _ = fmt.Fprintf(c, "100 %s", line)
					}
				})
			}
		})
		closers = append(closers, ln)
	}
	if err := upg.Ready(); err != nil {
		fail("ready", err)
	}
	say(message{Kind: "addrs", Addrs: addrs})
	<-upg.Exit()
	for _, c := range closers {
		_ = c.Close()
	}
	serving.Wait()
	say(message{Kind: "exit"})
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// TestPlainTableflip upgrades a service on plain tableflip to Baton in place, a
// few times within Baton, and back, under load.
func TestPlainTableflip(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		if mode == handoff.Drain {
			continue // tableflip's sockets are no reuseport ones: see TestDrainForeign
		}
		t.Run("to "+string(mode), func(t *testing.T) {
			t.Parallel()
			s := newService(t, settings{Mode: mode, Unnamed: mode == handoff.Inherit})
			path := filepath.Join(s.set.Dir, "u")
			tcp, udp := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
			s.set.Sockets = []string{"tcp " + tcp, "unix " + path, "udp " + udp}
			s.startCommand(s.commandFor("plain"))
			addrs := s.wait("addrs").Addrs
			s.pid()
			l := newLoad(t, s.set.Dir, addrs)
			l.run(10)
			baton := filepath.Join(s.set.Dir, "baton")
			if err := os.WriteFile(baton, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s.signal(syscall.SIGUSR2)
			first := s.wait("owner")
			s.wait("exit")
			s.fixPID()
			l.run(10)
			if gen, err := ask("unix", path); err != nil || gen != 1 {
				t.Errorf("after the upgrade to Baton: generation %d, %v, want 1", gen, err)
			}
			s.upgrade()
			s.waitFor("exit", func(m message) bool { return m.PID == first.PID && m.Kind == "exit" })
			l.run(10)
			if names := abstractNames(t, s.pid()); len(names) > 0 {
				t.Errorf("the service listens at abstract names, which any user can reach: %q", names)
			}
			if mode == handoff.Inherit {
				if err := os.Remove(baton); err != nil {
					t.Fatal(err)
				}
				s.signal(syscall.SIGUSR2)
				m := s.waitFor("committed", func(m message) bool { return m.Kind == "committed" || m.Kind == "upgrade-failed" })
				if m.Kind != "committed" {
					t.Fatalf("upgrade to plain tableflip: %s", m.Err)
				}
				second := s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 2 })
				s.gone(second.PID) // tableflip upgrades no process whose parent lives
				s.fixPID()
				plain := s.pid()
				l.run(20)
				if gen, err := ask("unix", path); err != nil || gen != 100 {
					t.Errorf("after the upgrade back: generation %d, %v, want 100 (plain)", gen, err)
				}
				// And once more in place: nothing is left of Baton.
				s.signal(syscall.SIGUSR2)
				s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.PID == plain })
				l.run(10)
			}
			l.stop()
			s.fixPID()
			last := s.pid()
			s.signal(syscall.SIGTERM)
			s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.PID == last })
			s.gone(s.pidsSeen()...)
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("unix socket after the end: %v, want none", err)
			}
			if n := l.failed.Load(); n != 0 {
				t.Errorf("%d of %d failed", n, l.asked.Load())
			}
		})
	}
}

// abstractNames returns those of the unix sockets that a process has (proc_net_unix(5)).
func abstractNames(tb testing.TB, pid int) (names []string) {
	tb.Helper()
	table, err := os.ReadFile("/proc/net/unix")
	fds, derr := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err := errors.Join(err, derr); err != nil {
		tb.Fatal(err)
	}
	own := make(map[string]bool)
	for _, fd := range fds {
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())) // it may be closed
		own[link] = true
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) == 8 && f[7][0] == '@' && own["socket:["+f[6]+"]"] {
			names = append(names, f[7])
		}
	}
	return names
}

// fixPID waits until the PID file names a living process: tableflip writes it
// before it tells its parent, Baton at commit.
func (s *service) fixPID() {
	s.tb.Helper()
	eventually(s.tb, "the PID file names the process that serves", func() bool {
		return s.alive(s.pid()) && slices.Contains(s.pidsSeen(), s.pid())
	})
}

// TestPlainDial has an outsider take over a service of mode Inherit. Nothing of
// tableflip's is left then, unless its end would take away the path of a unix
// socket, which is the successor's now.
func TestPlainDial(t *testing.T) {
	t.Parallel()
	for _, path := range []bool{false, true} {
		t.Run(fmt.Sprintf("path=%t", path), func(t *testing.T) {
			t.Parallel()
			s := newService(t, settings{Mode: handoff.Inherit, Sockets: []string{"tcp 127.0.0.1:0", "unix @" + testenv.ShortDir(t)}})
			socket := filepath.Join(s.set.Dir, "u")
			if path {
				s.set.Sockets = append(s.set.Sockets, "unix "+socket)
			}
			s.start()
			addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
			o := s.outsider(handoff.Takeover)
			o.wait("owner")
			exit := s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 1 })
			if exit.Engine != path {
				t.Errorf("tableflip's goroutine is left: %t, want %t", exit.Engine, path)
			}
			if gen, err := ask("tcp", addr); err != nil || gen != 2 {
				t.Errorf("after the takeover: generation %d, %v, want 2", gen, err)
			}
			if path {
				if gen, err := ask("unix", socket); err != nil || gen != 2 {
					t.Errorf("unix socket after the takeover: generation %d, %v, want 2", gen, err)
				}
			}
			o.stop()
		})
	}
}
