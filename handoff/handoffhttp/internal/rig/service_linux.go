package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/internal/testservice"
)

// A Service is a line of processes, each the successor of the one before.
type Service struct {
	Settings Settings

	line *testservice.Line[Message]
}

// Start starts the first process, with cmd, and waits until it serves.
func Start(ctx context.Context, cmd *exec.Cmd, set Settings) (*Service, error) {
	s := &Service{Settings: set, line: testservice.New[Message](strconv.Quote(set.Dir))}
	if set.Addr == "" {
		s.Settings.Addr = "127.0.0.1:0"
	}
	b, err := json.Marshal(s.Settings)
	if err != nil {
		return nil, err
	}
	// Under the race detector os.Exit takes a second by default.
	cmd.Env = append(cmd.Environ(), EnvSettings+"="+string(b), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	if err := s.line.Start(cmd, nil); err != nil {
		return nil, err
	}
	m, err := s.Wait(ctx, "listening")
	if err == nil {
		s.Settings.Addr = m.Addr
		_, err = s.Wait(ctx, "owner")
	}
	if err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// Log returns what the processes wrote to standard error.
func (s *Service) Log() string { return s.line.Log() }

// Wait waits for a message of a kind that no other Wait has had.
func (s *Service) Wait(ctx context.Context, kinds ...string) (Message, error) {
	return s.WaitFor(ctx, func(m Message) bool { return slices.Contains(kinds, m.Kind) })
}

// WaitFor waits for a message that no other Wait has had.
func (s *Service) WaitFor(ctx context.Context, ok func(Message) bool) (Message, error) {
	m, err := s.line.Take(ctx, ok)
	if err != nil {
		return m, fmt.Errorf("service: %w", err)
	}
	return m, nil
}

// Messages returns all messages.
func (s *Service) Messages() []Message { return s.line.Messages() }

// current returns the process that serves.
func (s *Service) current() int {
	for _, m := range slices.Backward(s.Messages()) {
		if m.Kind == "owner" {
			return m.PID
		}
	}
	return 0
}

// PID returns the process that serves.
func (s *Service) PID() int { return s.current() }

// Signal sends a signal to the process that serves.
func (s *Service) Signal(sig syscall.Signal) error {
	pid := s.current()
	if pid == 0 {
		return errors.New("no process serves")
	}
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
	pid := s.current()
	if err := s.Signal(syscall.SIGTERM); err != nil {
		return Message{}, err
	}
	m, err := s.Exit(ctx, pid)
	if err != nil {
		s.Kill()
		return m, err
	}
	s.line.Wait()
	return m, nil
}

// Kill ends what is left of the line.
func (s *Service) Kill() { s.line.Kill() }

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

// Stop ends the client and returns its result.
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
