package handoffdebug_test

import (
	"log"
	"net/http"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffdebug"
)

func Example() {
	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "api"})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(handoffdebug.Path, handoffdebug.Handler(up)) // at /debug/baton/
	// Serve mux where only operators get.
}
