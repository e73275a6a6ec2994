package operate

import "github.com/seed-11c92bf9/baton/handoff/internal/wire"

// RequestBody decodes the body of a request into into.
func RequestBody(op string, body []byte, into any) error {
	return (&request{asked: wire.Request{Op: op, Body: body}}).body(into)
}

// The limits of a Server.
const (
	MaxFollowers = maxFollowers
	MaxCommands  = maxCommands
	MaxWarnings  = maxWarnings
)
