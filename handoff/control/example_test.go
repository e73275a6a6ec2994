package control_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
)

// A deploy script's last step: upgrade, and print the result.
func ExampleClient_Upgrade() {
	c, err := control.New(&control.Config{Name: "api"})
	if err != nil {
		log.Fatal(err)
	}
	report, err := c.Upgrade(context.Background(), &control.UpgradeConfig{
		Timeout: 2 * time.Minute,
		OnEvent: func(e handoff.Event) { log.Print(e.Kind) },
	})
	var failed *handoff.UpgradeError
	switch {
	case errors.Is(err, control.ErrNoServer), errors.Is(err, control.ErrStale):
		log.Fatal("nothing runs: start it")
	case errors.As(err, &failed):
		log.Fatalf("the old version serves on: %v\n%q", failed.Err, failed.Stderr)
	case err != nil:
		log.Fatal(err)
	}
	fmt.Println("pid", report.Successor.PID, "serves, after", report.Durations.Total)
}
