package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

const qemu = "qemu-system-x86_64"

// kernelArgs have a panic end the machine, and no check that the timer ticks in
// time, which on a busy host it does not.
const kernelArgs = "console=ttyS0 quiet panic=-1 oops=panic no_timer_check"

// A machine is an emulated one.
type machine struct {
	kernel    kernel
	initramfs string
	console   string // file for what the kernel and init say
	memory    int    // MiB
	cpus      int
}

// boot runs the machine to its end, and calls report for each event. An error says
// why the machine did not come to its end by itself.
func (m machine) boot(ctx context.Context, report func(event) error) (err error) {
	if _, err := exec.LookPath(qemu); err != nil {
		return fmt.Errorf("needs QEMU: apt-get install qemu-system-x86: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu,
		"-accel", "tcg", "-cpu", "max", "-smp", strconv.Itoa(m.cpus), "-m", strconv.Itoa(m.memory),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none",
		"-kernel", m.kernel.image, "-initrd", m.initramfs,
		"-append", kernelArgs+" "+envRole+"="+roleInit,
		"-serial", "file:"+m.console,
		"-chardev", "stdio,id=events,signal=off", "-serial", "chardev:events")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended, terr := follow(out, report)
	if terr != nil {
		cancel() // no event is read any more
	}
	werr := cmd.Wait()
	switch {
	case terr != nil:
		return terr
	case ctx.Err() != nil:
		return fmt.Errorf("the machine was stopped: %w; %s", context.Cause(ctx), m.lastWords())
	case werr != nil:
		return fmt.Errorf("%s: %w: %s", qemu, werr, strings.TrimSpace(stderr.String()))
	case !ended:
		return fmt.Errorf("the machine has ended before its tests; %s", m.lastWords())
	}
	return nil
}

// lastWords is the end of the console.
func (m machine) lastWords() string {
	b, err := os.ReadFile(m.console)
	if err != nil {
		return err.Error()
	}
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return "its console ends:\n" + strings.TrimSpace(string(b))
}

// follow reads events to the end of r. It reports whether the runner has said
// that it is through.
func follow(r io.Reader, report func(event) error) (ended bool, err error) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var e event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			return ended, fmt.Errorf("the machine says %q: %w", sc.Text(), err)
		}
		if e.Kind == eventEnd {
			ended = true
			if e.Text != "" {
				return ended, errors.New("the machine's runner: " + e.Text)
			}
			continue
		}
		if err := report(e); err != nil {
			return ended, err
		}
	}
	return ended, sc.Err()
}

// converter makes events of tests of what a binary says: go tool test2json, as
// go test does.
type converter struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out chan error // of who reads what comes out
}

func newConverter(ctx context.Context, report func(testEvent)) (*converter, error) {
	c := &converter{cmd: exec.CommandContext(ctx, "go", "tool", "test2json"), out: make(chan error, 1)}
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.cmd.WaitDelay = 10 * time.Second
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the command
		d := json.NewDecoder(out)
		for {
			var e testEvent
			if err := d.Decode(&e); err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				_, _ = io.Copy(io.Discard, out) // or it would wait for us
				c.out <- err
				return
			}
			report(e)
		}
	}()
	return c, nil
}

// close returns when all events were handled.
func (c *converter) close() error {
	return errors.Join(c.in.Close(), <-c.out, c.cmd.Wait())
}
