package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/internal/procs"
)

// A Service is a line of processes, each the successor of the one before.
type Service struct {
	Settings Settings

	cmd  *exec.Cmd
	log  logBuffer
	done sync.WaitGroup

	mu      sync.Mutex
	history []Message
	taken   []bool        // by a Wait, one each of history
	news    chan struct{} // closed and replaced with each message
	current int           // the process that serves
}

// Start starts the first process, with cmd, and waits until it serves.
func Start(ctx context.Context, cmd *exec.Cmd, set Settings) (*Service, error) {
	s := &Service{Settings: set, cmd: cmd, news: make(chan struct{})}
	if set.Addr == "" {
		s.Settings.Addr = "127.0.0.1:0"
	}
	b, err := json.Marshal(s.Settings)
	if err != nil {
		return nil, err
	}
	// Under the race detector os.Exit takes a second by default.
	cmd.Env = append(cmd.Environ(), EnvSettings+"="+string(b), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	out, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	logR, logW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, logW
	err = cmd.Start()
	_, _ = w.Close(), logW.Close()
	if err != nil {
		_, _ = out.Close(), logR.Close()
		return nil, err
	}
	s.done.Go(func() { // ends with the last process of the line
		_, _ = io.Copy(&s.log, logR)
		_ = logR.Close()
	})
	s.done.Go(func() {
		s.read(out)
		_ = out.Close()
	})
	s.done.Go(func() { _ = cmd.Wait() })
	m, err := s.Wait(ctx, "listening")
	if err != nil {
		s.Kill()
		return nil, err
	}
	s.Settings.Addr = m.Addr
	if _, err := s.Wait(ctx, "owner"); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

func (s *Service) read(r io.Reader) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		var m Message
		if json.Unmarshal(sc.Bytes(), &m) != nil {
			continue // the test framework's own words
		}
		s.mu.Lock()
		s.history, s.taken = append(s.history, m), append(s.taken, false)
		if m.Kind == "owner" {
			s.current = m.PID
		}
		close(s.news)
		s.news = make(chan struct{})
		s.mu.Unlock()
	}
}

// Log returns what the processes wrote to standard error.
func (s *Service) Log() string { return s.log.String() }

// Wait waits for a message of a kind that no other Wait has had.
func (s *Service) Wait(ctx context.Context, kinds ...string) (Message, error) {
	return s.WaitFor(ctx, func(m Message) bool { return slices.Contains(kinds, m.Kind) })
}

// WaitFor waits for a message that no other Wait has had.
func (s *Service) WaitFor(ctx context.Context, ok func(Message) bool) (Message, error) {
	for {
		s.mu.Lock()
		for i, m := range s.history {
			if !s.taken[i] && ok(m) {
				s.taken[i] = true
				s.mu.Unlock()
				return m, nil
			}
		}
		news := s.news
		s.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return Message{}, fmt.Errorf("service: %w: heard %+v\n%s", context.Cause(ctx), s.Heard(), s.Log())
		}
	}
}

// Heard returns all messages.
func (s *Service) Heard() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.history)
}

// Signal sends a signal to the process that serves.
func (s *Service) Signal(sig syscall.Signal) error {
	s.mu.Lock()
	pid := s.current
	s.mu.Unlock()
	return os.NewSyscallError("kill", syscall.Kill(pid, sig))
}

// Upgrade replaces the process, and returns when its successor is committed.
func (s *Service) Upgrade(ctx context.Context) (Message, error) {
	if err := s.Signal(syscall.SIGUSR2); err != nil {
		return Message{}, err
	}
	m, err := s.Wait(ctx, "committed", "upgrade-failed")
	if err != nil {
		return m, err
	}
	if m.Kind != "committed" {
		return m, fmt.Errorf("upgrade: %s\n%s", m.Err, s.Log())
	}
	_, err = s.Wait(ctx, "owner")
	return m, err
}

// Exit waits for the end of a process.
func (s *Service) Exit(ctx context.Context, pid int) (Message, error) {
	return s.WaitFor(ctx, func(m Message) bool { return m.PID == pid && (m.Kind == "exit" || m.Kind == "failed") })
}

// Stop ends the service gracefully and waits for all its processes.
func (s *Service) Stop(ctx context.Context) (Message, error) {
	s.mu.Lock()
	pid := s.current
	s.mu.Unlock()
	if err := s.Signal(syscall.SIGTERM); err != nil {
		return Message{}, err
	}
	m, err := s.Exit(ctx, pid)
	if err != nil {
		s.Kill()
		return m, err
	}
	s.done.Wait()
	return m, nil
}

// Kill ends what is left of the line.
func (s *Service) Kill() {
	pids := map[int]bool{s.cmd.Process.Pid: true}
	for _, m := range s.Heard() {
		pids[m.PID] = true
	}
	for pid := range pids {
		procs.Kill(pid, strconv.Quote(s.Settings.Dir))
	}
	s.done.Wait()
}

// A Client is a client process.
type Client struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	log bytes.Buffer
}

// StartClient starts a client process and waits until each of its clients has
// had a response. new makes the command of a process that runs [ClientMain]
// with an argument.
func StartClient(load Load, command func(arg string) *exec.Cmd) (*Client, error) {
	b, err := json.Marshal(load)
	if err != nil {
		return nil, err
	}
	c := &Client{cmd: command(string(b))}
	c.cmd.Stderr = &c.log
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := c.line(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Client) line() (string, error) {
	text, err := c.out.ReadString('\n')
	if err != nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		return "", fmt.Errorf("client: %w\n%s", err, c.log.String())
	}
	return strings.TrimSpace(text), nil
}

// Count returns the number of responses so far.
func (c *Client) Count() (uint64, error) {
	if _, err := io.WriteString(c.in, "count\n"); err != nil {
		return 0, err
	}
	text, err := c.line()
	if err != nil {
		return 0, err
	}
	var n uint64
	_, err = fmt.Sscan(text, &n)
	return n, err
}

// More waits until there are n responses more.
func (c *Client) More(ctx context.Context, n uint64) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	first, err := c.Count()
	for now := first; err == nil && now < first+n; now, err = c.Count() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("client: %w: %d responses", context.Cause(ctx), now)
		}
	}
	return err
}

// Stop ends the client and returns what came of it.
func (c *Client) Stop() (Outcome, error) {
	var o Outcome
	_ = c.in.Close() // it reads until then
	text, err := c.line()
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return o, err
	}
	return o, c.cmd.Wait()
}

// logBuffer collects the standard error of all processes.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() > 1<<20 {
		return len(p), nil // enough
	}
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
