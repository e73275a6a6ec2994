package handoff_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// A server that is replaced by SIGUSR2, and ended by SIGTERM.
func Example() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "api"})
	if err != nil {
		return err
	}
	ln, err := up.Listen(ctx, "tcp", ":8080") // the predecessor's socket, or a new one
	if err != nil {
		return err
	}
	go serve(ln)
	if err := up.Ready(); err != nil { // from here on the predecessor does not accept
		return err
	}
	<-up.Done()             // a successor is committed, or a stop signal arrived
	return up.Shutdown(ctx) // when the open connections are done
}

// serve answers each line with itself.
func serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return // net.ErrClosed: a successor accepts now
		}
		go func() {
			defer c.Close()
			for lines := bufio.NewScanner(c); lines.Scan(); {
				fmt.Fprintln(c, lines.Text())
			}
		}()
	}
}

// A server of a framework that does not say when it serves: the program is ready when the
// server accepts.
func ExampleUpgrader_ReadyAccepting() {
	ctx := context.Background()
	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "api"})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := up.Listen(ctx, "tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	go serve(ln) // the framework's
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := up.ReadyAccepting(starting); err != nil {
		log.Fatal(err)
	}
	<-up.Done()
	if err := up.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}

// A process can be the first of its line, and nothing is different.
func ExampleUpgrader_Listen() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, ControlSocket: filepath.Join(dir, "run", "control.sock")})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := up.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go serve(ln)
	if err := up.Ready(); err != nil {
		log.Fatal(err)
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintln(c, "hello")
	line, err := bufio.NewReader(c).ReadString('\n')
	fmt.Print(line)
	_ = c.Close()
	if err := up.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("generation", up.Generation(), "is done:", up.Err())
	// Output:
	// hello
	// generation 1 is done: <nil>
}

// What a process knows can go to its successor.
func ExampleUpgrader_ProvideState() {
	var up *handoff.Upgrader // from New
	restore := func() ([]byte, error) {
		f, err := up.State("sessions")
		if err != nil {
			return nil, err // errors.Is(err, os.ErrNotExist): there is none
		}
		defer f.Close()
		return io.ReadAll(f)
	}
	provide := func(sessions []byte) {
		up.ProvideState("sessions", func(_ context.Context, w io.Writer) error {
			_, err := w.Write(sessions)
			return err
		})
	}
	_, _ = restore, provide
}
