package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
)

// command returns the command of a process of this program in a role: "service"
// or "clients".
type command func(role string, args ...string) *exec.Cmd

// A rig is a service, the line of its processes, and its clients.
type rig struct {
	command
	set   serviceSettings
	load  clientSettings // what all clients have in common
	link  *netlab.Link   // nil without
	log   *os.File       // standard error of all
	stdin []*os.File     // of the service's first processes; closed at the end
	mark  string         // an entry of the environment of all processes of the service

	filter bool // the processes that start are filtered
	calls  injector

	clients []*clientProcess
	readers sync.WaitGroup

	mu       sync.Mutex
	news     chan struct{} // closed and replaced with each message
	messages []message
	pids     map[int]bool      // processes of the service that have sent a message
	wrappers map[int]bool      // shells that processes of the service were started by
	groups   []int             // process groups of the service
	actual   map[string]string // where it listens
}

// newRig prepares a rig in dir.
func newRig(dir string, cmd command, set serviceSettings, load clientSettings, link *netlab.Link) (*rig, error) {
	r := &rig{
		command: cmd, set: set, load: load, link: link, news: make(chan struct{}), pids: make(map[int]bool), wrappers: make(map[int]bool),
		mark: "BATON_GAUNTLET_RIG=" + dir,
	}
	r.set.Dir, r.set.Notes = filepath.Join(dir, "run"), filepath.Join(dir, "notes")
	if r.set.State == "" {
		r.set.State = r.set.Dir
	}
	for _, d := range []string{r.set.Dir, r.set.Notes} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	host := "127.0.0.1"
	if link != nil {
		host = netlab.ServerAddrs[0].String()
	}
	r.set.Addrs = make(map[string]string)
	for _, name := range listeners() {
		r.set.Addrs[name] = host + ":0"
		if strings.HasPrefix(name, "unix") {
			r.set.Addrs[name] = filepath.Join(r.set.Dir, name)
		}
	}
	if err := os.Symlink(cmd("service").Path, r.program()); err != nil {
		return nil, err
	}
	if _, _, err := selfsigned.Write(r.set.Notes, "gauntlet"); err != nil {
		return nil, err
	}
	var err error
	r.log, err = os.Create(filepath.Join(r.set.Notes, "log"))
	return r, err
}

// begin starts cmd on the service's side of the link, or the clients'.
func (r *rig) begin(cmd *exec.Cmd, far bool) (err error) {
	// The signal that package testmain asks for comes with the end of the thread
	// that starts a process (prctl(2)), and here that ends at once. All processes
	// end with their standard input.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // not for the terminal's signals
	switch {
	case r.link == nil:
		return cmd.Start()
	case far:
		r.link.Client.Do(func() { err = cmd.Start() })
	default:
		r.link.Server.Do(func() { err = cmd.Start() })
	}
	return err
}

// start starts a process of the service that no predecessor has started, and
// returns its process ID.
func (r *rig) start() (int, error) {
	if at := r.addrs(); at != nil { // the clients know these
		r.set.Addrs = at
	}
	return r.startAs(r.set)
}

// startAs is start with other settings.
func (r *rig) startAs(settings serviceSettings) (int, error) {
	out, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer w.Close()
	in, stdin, err := os.Pipe()
	if err != nil {
		_ = out.Close()
		return 0, err
	}
	defer in.Close()
	set, err := json.Marshal(settings)
	if err != nil {
		return 0, err
	}
	cmd := r.command("service")
	cmd.Env = append(cmd.Environ(), envService+"="+string(set), r.mark, "GOTRACEBACK=all", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.Path, cmd.Args[0] = r.program(), r.program()
	if r.filter {
		cmd.Env = append(cmd.Env, envFilter+"=1")
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, w, r.log
	if err := r.begin(cmd, false); err != nil {
		_, _ = out.Close(), stdin.Close()
		return 0, err
	}
	pid := cmd.Process.Pid
	_ = cmd.Process.Release() // reap waits for it
	r.stdin = append(r.stdin, stdin)
	r.mu.Lock()
	r.pids[pid] = true
	r.groups = append(r.groups, pid)
	r.mu.Unlock()
	r.readers.Go(func() { // ends with the last process that has the other end
		r.read(out)
		_ = out.Close()
	})
	return pid, nil
}

func (r *rig) read(out io.Reader) {
	sc := bufio.NewScanner(out)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var m message
		if json.Unmarshal(sc.Bytes(), &m) != nil {
			continue // a test framework's words
		}
		if m.Kind == "filter" {
			if err := r.answerCalls(m.PID, m.Listener); err != nil {
				fmt.Fprintln(r.log, "gauntlet: a filter of system calls:", err) // it may have been killed
			}
			continue
		}
		r.mu.Lock()
		if m.Kind == "serving" {
			r.actual = m.Addrs
		}
		r.messages = append(r.messages, m)
		if m.Kind == "wrapper" {
			r.wrappers[m.PID] = true
			delete(r.pids, m.PID)
		} else {
			r.pids[m.PID] = true
		}
		close(r.news)
		r.news = make(chan struct{})
		r.mu.Unlock()
	}
}

// received returns the messages from the n-th on.
func (r *rig) received(n int) []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages[n:])
}

func (r *rig) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.messages)
}

// addrs returns the addresses at which the service listens.
func (r *rig) addrs() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.actual
}

// until waits until ok returns true for the messages from the n-th on. It calls ok
// again on each new message, and from time to time.
func (r *rig) until(ctx context.Context, n int, ok func([]message) bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.Lock()
		got, news := slices.Clone(r.messages[n:]), r.news
		r.mu.Unlock()
		if ok(got) {
			return nil
		}
		select {
		case <-news:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// owner returns the process that serves, by the PID file; 0 if there is none.
func (r *rig) owner() int {
	b, err := os.ReadFile(filepath.Join(r.set.State, "pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// close ends all processes, by force, and removes nothing.
func (r *rig) close() {
	for _, c := range r.clients {
		c.kill()
	}
	r.clients = nil
	for {
		pids := r.processes()
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone is as good
		}
		<-time.After(time.Millisecond)
	}
	for _, f := range r.stdin {
		_ = f.Close()
	}
	r.readers.Wait()
	r.mu.Lock()
	r.wait(0) // an ending process has lost its environment, which identifies it
	r.mu.Unlock()
	r.calls.serving.Wait()
	_ = r.log.Close()
}

// clientProcess is a process of clients.
type clientProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startClients starts a process of clients.
func (r *rig) startClients(far bool) error {
	set := r.load
	set.Process, set.Far, set.Dir, set.Addrs = uint32(len(r.clients)+1), far, r.set.Notes, r.addrs()
	b, err := json.Marshal(set)
	if err != nil {
		return err
	}
	cmd := r.command("clients", string(b))
	cmd.Stderr = r.log
	c := &clientProcess{cmd: cmd}
	if c.in, err = cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c.out = bufio.NewReader(out)
	if err := r.begin(cmd, far); err != nil {
		return err
	}
	r.clients = append(r.clients, c)
	return nil
}

// tell sends a command to all client processes and returns the sum of their answers.
func (r *rig) tell(word string, answers bool) (sum clientMessage, err error) {
	for _, c := range r.clients {
		if _, err := io.WriteString(c.in, word+"\n"); err != nil {
			return sum, fmt.Errorf("clients: %w", err)
		}
	}
	for _, c := range r.clients {
		if !answers {
			break
		}
		line, err := c.out.ReadBytes('\n')
		if err != nil {
			return sum, fmt.Errorf("clients: %w", err)
		}
		var m clientMessage
		if err := json.Unmarshal(line, &m); err != nil {
			return sum, fmt.Errorf("clients: %w", err)
		}
		sum.Requests, sum.Failed = sum.Requests+m.Requests, sum.Failed+m.Failed
	}
	return sum, nil
}

func (c *clientProcess) kill() {
	_ = c.in.Close()
	_ = c.cmd.Process.Kill() // ended is as good
	_ = c.cmd.Wait()
}

// firstStart starts the service and waits until it serves.
func (r *rig) firstStart(ctx context.Context) (int, error) {
	n := r.count()
	pid, err := r.start()
	if err != nil {
		return 0, err
	}
	err = r.until(ctx, n, func(ms []message) bool {
		return slices.ContainsFunc(ms, func(m message) bool { return m.PID == pid && m.Kind == "serving" }) && r.owner() == pid || !running(pid)
	})
	if err == nil && !running(pid) {
		err = fmt.Errorf("the service has not started:\n%s", r.lastLog(20))
	}
	return pid, err
}

// lastLog returns the last lines of the log of all processes.
func (r *rig) lastLog(n int) string {
	b, err := os.ReadFile(r.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
