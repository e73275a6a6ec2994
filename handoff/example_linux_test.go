package handoff_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// In mode Drain the successor has a socket of its own beside the predecessor's,
// and the predecessor serves what the kernel had given to its own before it goes.
// Both are in one process here.
func Example_drain() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	moved := make(chan handoff.Event, 1)
	generation := func(address string) (*handoff.Upgrader, *handoff.Listener) {
		up, err := handoff.New(&handoff.Config{
			Mode: handoff.Drain,
			OnEvent: func(e handoff.Event) {
				if e.Kind == handoff.EventMoved {
					moved <- e
				}
			},
			ControlSocket:  filepath.Join(dir, "run", "control.sock"),
			Probation:      -1,
			UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
		})
		if err != nil {
			log.Fatal(err)
		}
		ln, err := up.Listen(ctx, "tcp", address)
		if errors.Is(err, handoff.ErrUnsupported) {
			log.Fatal(err) // the running socket is another user's, or has no SO_REUSEPORT
		}
		if err != nil {
			log.Fatal(err)
		}
		return up, ln
	}

	old, first := generation("127.0.0.1:0")
	go serve(first)
	if err := old.Ready(); err != nil {
		log.Fatal(err)
	}
	c, err := net.Dial("tcp", first.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	// The next version, which would be another process. It accepts from the same
	// socket at first. After the commit it moves to its own, and leaves the old one
	// when nothing waits in it.
	next, second := generation(first.Addr().String())
	go serve(second)
	if err := next.Ready(); err != nil {
		log.Fatal(err)
	}
	<-old.Done()

	fmt.Fprintln(c, "a connection of before")
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(line)
	_ = c.Close()
	if err := old.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	for _, r := range old.Status().Upgrades {
		fmt.Println(r.Mode, r.Outcome)
	}
	e := <-moved
	fmt.Println("moved", e.Address == "tcp "+second.Addr().String(), e.Err)
	if err := next.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// a connection of before
	// drain committed
	// moved true <nil>
}
