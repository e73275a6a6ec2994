package main

import (
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// A kind is what a client does.
type kind uint8

const (
	short kind = iota // GET, a connection for each
	get               // GET on a connection that is kept
	post              // POST on a connection that is kept
)

func (k kind) String() string { return [...]string{"short", "get", "post"}[k] }

// A record is one request. Times are those of the monotonic clock, which is one
// for all processes.
type record struct {
	Due     time.Duration // when it was to be sent
	Took    time.Duration // from Due to the answer, or to the failure
	Version uint32        // that has answered; 0 if none has
	Kind    kind
	Class   load.Class // how it failed; "" if it did not
	Seen    bool       // the connection's end was there before the request was sent
}

func (r *record) end() time.Duration { return r.Due + r.Took }

func (r *record) failed() bool { return r.Class != "" }
