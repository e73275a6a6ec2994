package handoffprom_test

import (
	"log"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffprom"
)

func Example() {
	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "api"})
	if err != nil {
		log.Fatal(err)
	}
	prometheus.MustRegister(handoffprom.New(up))
}
