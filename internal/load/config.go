package load

import (
	"errors"
	"fmt"
	"time"
)

// The defaults of [Config].
const (
	DefaultTimeout   = 10 * time.Second
	DefaultPause     = 2 * time.Millisecond
	DefaultQuestions = 40
	DefaultSpacing   = 25 * time.Millisecond
	DefaultEvery     = 250 * time.Millisecond
)

// Kind says what a client does with its connections.
type Kind string

// The kinds.
const (
	// Once opens a connection, asks one question, and sees the service close.
	Once Kind = "once"
	// Keep opens a connection and asks Config.Questions questions on it,
	// whatever happens to the service meanwhile.
	Keep Kind = "keep"
	// Marked opens a connection and asks questions on it until the service
	// says that it was the last.
	Marked Kind = "marked"
	// Datagram sends a datagram and waits for the answer. A lost one is a
	// failure.
	Datagram Kind = "datagram"
	// HTTP sends a POST request on a connection of its own.
	HTTP Kind = "http"
	// Post sends POST requests on a connection that it keeps, until the service
	// says in a response that it was the last.
	Post Kind = "post"
)

// Short reports whether an exchange of this kind is over with one answer, so
// that the version that answers follows the service without delay.
func (k Kind) Short() bool { return k == Once || k == HTTP || k == Datagram }

// A Target is an address and what to do with it.
type Target struct {
	// Name names it in [Stats.Targets]. Required, and unique.
	Name string
	Kind Kind
	// Network and Address are those of [net.Dial].
	Network, Address string
	// Workers is the number of clients, each of which has one connection at a
	// time. It must be positive.
	Workers int
}

// Config says what [Run] does. The zero value of each field but Targets gives
// its default.
type Config struct {
	Targets []Target
	// Timeout bounds each step of an exchange: dial, question and answer. Zero
	// means DefaultTimeout.
	Timeout time.Duration
	// Pause is a client's pause between two connections of the kinds Once and
	// HTTP, two datagrams, or two requests of kind Post. Zero means DefaultPause, negative none.
	Pause time.Duration
	// Questions is their number on a connection of kind Keep. Zero means
	// DefaultQuestions.
	Questions int
	// Spacing is the time between two questions on the kinds Keep and Marked.
	// Zero means DefaultSpacing.
	Spacing time.Duration
	// Every is the time between two calls of Progress. Zero means DefaultEvery.
	Every time.Duration
	// Progress is called with the figures so far, from one goroutine. nil means no progress.
	Progress func(Stats)
	// Failed is called with each exchange that fails, from the goroutine of its
	// client. It may be nil.
	Failed func(Failure)
}

// withDefaults returns a checked copy.
func (c Config) withDefaults() (Config, error) {
	if len(c.Targets) == 0 {
		return c, errors.New("load: no targets: name at least one address")
	}
	seen := make(map[string]bool)
	for _, t := range c.Targets {
		switch t.Kind {
		case Once, Keep, Marked, Datagram, HTTP, Post:
		default:
			return c, fmt.Errorf("load: target %q: unknown kind %q", t.Name, t.Kind)
		}
		if t.Name == "" || seen[t.Name] {
			return c, fmt.Errorf("load: target %q: names must be unique and not empty", t.Name)
		}
		if t.Workers <= 0 {
			return c, fmt.Errorf("load: target %q: %d workers: it needs at least one", t.Name, t.Workers)
		}
		seen[t.Name] = true
	}
	if c.Timeout < 0 || c.Questions < 0 || c.Spacing < 0 || c.Every < 0 {
		return c, errors.New("load: Timeout, Questions, Spacing and Every must not be negative")
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Pause == 0 {
		c.Pause = DefaultPause
	}
	if c.Questions == 0 {
		c.Questions = DefaultQuestions
	}
	if c.Spacing == 0 {
		c.Spacing = DefaultSpacing
	}
	if c.Every == 0 {
		c.Every = DefaultEvery
	}
	return c, nil
}
