package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// A command returns the command that runs a role of this program with args.
type command func(role string, args ...string) *exec.Cmd

// place starts a command: somewhere, as in a network namespace.
type place func(cmd *exec.Cmd) error

// load is a client process, from the driver's side.
type clientProcess struct {
	cmd *exec.Cmd
	in  io.Closer
	log bytes.Buffer
	wg  sync.WaitGroup

	mu   sync.Mutex
	last clientMessage
	news chan struct{} // closed and replaced with each message
	end  bool
}

func startClients(set clientSettings, command command, at place) (*clientProcess, error) {
	b, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	c := &clientProcess{cmd: command("clients", string(b)), news: make(chan struct{})}
	c.cmd.Stderr = &c.log
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := at(c.cmd); err != nil {
		return nil, err
	}
	c.wg.Go(func() { // ends with the process
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			var m clientMessage
			if json.Unmarshal(sc.Bytes(), &m) == nil {
				c.tell(m, false)
			}
		}
		c.tell(clientMessage{}, true)
	})
	return c, nil
}

func (c *clientProcess) tell(m clientMessage, end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if end {
		c.end = true
	} else {
		c.last = m
	}
	close(c.news)
	c.news = make(chan struct{})
}

func (c *clientProcess) latest() clientMessage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

var errClients = errors.New("the client process has ended")

// wait waits for a message.
func (c *clientProcess) wait(ctx context.Context, ok func(clientMessage) bool) error {
	for {
		c.mu.Lock()
		m, news, end := c.last, c.news, c.end
		c.mu.Unlock()
		if ok(m) {
			return nil
		}
		if end {
			return fmt.Errorf("%w: %s", errClients, c.log.String())
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// stop ends the process and waits for it.
func (c *clientProcess) stop() error {
	_ = c.in.Close() // it reads until then
	over := time.AfterFunc(3*requestTimeout, func() { _ = c.cmd.Process.Kill() })
	defer over.Stop()
	c.wg.Wait()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %w: %s", errClients, err, c.log.String())
	}
	return nil
}

// readRecords reads what a client process has written.
func readRecords(file string) (records []record, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return records, gob.NewDecoder(bufio.NewReader(f)).Decode(&records)
}
