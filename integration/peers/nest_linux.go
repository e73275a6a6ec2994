package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A nest is where a peer's processes live: below this process.
type nest struct {
	keeperSettings
	main int // the first process
	log  *os.File

	mu   sync.Mutex
	own  map[int]bool // processes for which their exec.Cmd waits
	stop chan struct{}
	wg   sync.WaitGroup
}

func newNest(set keeperSettings) *nest {
	n := &nest{keeperSettings: set, own: make(map[int]bool), stop: make(chan struct{})}
	n.wg.Go(func() { // ends with stop
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				n.reap()
			case <-n.stop:
				return
			}
		}
	})
	return n
}

func (n *nest) close() {
	close(n.stop)
	n.wg.Wait()
	if n.log != nil {
		_ = n.log.Close() // a log
	}
}

// outside and inside name a file of the peer's folder, for this process and for
// those in the root.
func (n *nest) outside(name string) string { return filepath.Join(n.Dir, name) }

func (n *nest) inside(name string) string {
	return filepath.Join("/", strings.TrimPrefix(n.outside(name), n.Root))
}

// put writes a file of the peer's folder, in one step.
func (n *nest) put(name, format string, args ...any) error {
	path := n.outside(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", fmt.Appendf(nil, format, args...), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// command returns a command in the root.
func (n *nest) command(args ...string) (*exec.Cmd, error) {
	if n.log == nil {
		var err error
		if n.log, err = os.OpenFile(n.outside("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY|os.O_TRUNC, 0o644); err != nil {
			return nil, err
		}
	}
	path, err := lookUp(n.Root, args[0])
	if err != nil {
		return nil, err
	}
	// With the whole path: some servers start themselves again by it.
	cmd := &exec.Cmd{Path: path, Args: append([]string{path}, args[1:]...), Dir: n.inside(""), Stdout: n.log, Stderr: n.log}
	if n.Root != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: n.Root}
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "HOME=" + n.inside(""), "XDG_DATA_HOME=" + n.inside(""), "XDG_CONFIG_HOME=" + n.inside(""), "LANG=C.UTF-8"}
	}
	return cmd, nil
}

// start starts a process that stays, and is the main one if there is none.
func (n *nest) start(cmd *exec.Cmd) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	n.own[pid] = true
	if n.main == 0 {
		n.main = pid
	}
	n.wg.Go(func() { // ends with the process, which clear sees to
		_ = cmd.Wait() // how it ends is the clients' to see
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.own, pid)
	})
	return nil
}

// serve starts a command of the root that stays.
func (n *nest) serve(args ...string) error {
	cmd, err := n.command(args...)
	if err != nil {
		return err
	}
	return n.start(cmd)
}

// run runs a command of the root to its end.
func (n *nest) run(args ...string) error {
	cmd, err := n.command(args...)
	if err != nil {
		return err
	}
	n.mu.Lock()
	if err := cmd.Start(); err != nil {
		n.mu.Unlock()
		return err
	}
	pid := cmd.Process.Pid
	n.own[pid] = true
	n.mu.Unlock()
	err = cmd.Wait()
	n.mu.Lock()
	delete(n.own, pid)
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// signal sends a signal to a process of the peer.
func (n *nest) signal(pid int, sig syscall.Signal) error {
	if !slices.Contains(n.processes(), pid) {
		return fmt.Errorf("%d is no process of the peer", pid)
	}
	return os.NewSyscallError("kill", syscall.Kill(pid, sig))
}

// pidFile returns the process that a file names.
func (n *nest) pidFile(name string) (int, error) {
	b, err := os.ReadFile(n.outside(name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// reap waits for orphans that have ended.
func (n *nest) reap() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range processTable() {
		if s.parent == os.Getpid() && s.state == 'Z' && !n.own[s.pid] {
			_, _ = syscall.Wait4(s.pid, nil, syscall.WNOHANG, nil) // a zombie
		}
	}
}

// processes returns the peer's live processes, the oldest first.
func (n *nest) processes() []int { return descendants(os.Getpid()) }

// logTail returns the end of what a peer's processes have written.
func logTail(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

type stat struct {
	pid, parent int
	state       byte
	start       uint64
}

// processTable returns all processes.
func processTable() []stat {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	var all []stat
	for _, dir := range dirs {
		if s, ok := readStat(dir); ok {
			all = append(all, s)
		}
	}
	return all
}

func readStat(dir string) (s stat, ok bool) {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return s, false
	}
	_, rest, ok := bytes.Cut(b, []byte(") ")) // a name may hold anything but that
	f := strings.Fields(string(rest))
	if !ok || len(f) < 20 {
		return s, false
	}
	s.pid, _ = strconv.Atoi(filepath.Base(dir))
	s.state = f[0][0]
	s.parent, _ = strconv.Atoi(f[1])
	s.start, _ = strconv.ParseUint(f[19], 10, 64) // proc_pid_stat(5)
	return s, true
}

// alive reports whether a process runs.
func alive(pid int) bool {
	s, ok := readStat(fmt.Sprintf("/proc/%d", pid))
	return ok && s.state != 'Z' && s.state != 'X'
}

// descendants returns the live processes below one, the oldest first.
func descendants(root int) []int {
	all := processTable()
	below := map[int]bool{root: true}
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if below[s.parent] && !below[s.pid] {
				below[s.pid], grown = true, true
			}
		}
	}
	all = slices.DeleteFunc(all, func(s stat) bool { return s.pid == root || !below[s.pid] || s.state == 'Z' || s.state == 'X' })
	slices.SortFunc(all, func(a, b stat) int { return cmp.Or(cmp.Compare(a.start, b.start), a.pid-b.pid) })
	var pids []int
	for _, s := range all {
		pids = append(pids, s.pid)
	}
	return pids
}

// pss returns the memory of processes together, in bytes: each page divided by
// the number of those that share it, proc_pid_smaps_rollup(5).
func pss(pids []int) (sum uint64) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it has ended meanwhile
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) >= 2 && f[0] == "Pss:" {
				kb, _ := strconv.ParseUint(f[1], 10, 64)
				sum += kb << 10
			}
		}
	}
	return sum
}

// lookUp finds a program in the root, and returns its path there.
func lookUp(root, program string) (string, error) {
	if root == "" {
		return exec.LookPath(program)
	}
	for _, dir := range []string{"/usr/sbin/", "/usr/bin/"} {
		if _, err := os.Stat(filepath.Join(root, dir, program)); err == nil {
			return dir + program, nil
		}
	}
	return "", fmt.Errorf("%s is not in %s", program, root)
}
