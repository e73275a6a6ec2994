package supervisor

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/control"
)

// Restart says when an app that has ended is started again.
type Restart string

// The policies.
const (
	RestartOnFailure Restart = "on-failure" // unless it has exited with status 0
	RestartAlways    Restart = "always"
	RestartNever     Restart = "never"
)

// Restarts returns all policies.
func Restarts() []string {
	return []string{string(RestartOnFailure), string(RestartAlways), string(RestartNever)}
}

// The defaults of [Config].
const (
	DefaultReadyAfter      = 2 * time.Second
	DefaultReadyTimeout    = time.Minute
	DefaultStopTimeout     = 10 * time.Second
	DefaultStopSignal      = "TERM"
	DefaultRestartDelay    = 100 * time.Millisecond
	DefaultRestartMaxDelay = 30 * time.Second
	DefaultRestartReset    = 10 * time.Second
)

// Config says what to run and how. Fields without a default of their own are used as
// they are when zero.
type Config struct {
	// Args are the app and its arguments. The app is looked up in PATH at each
	// start. Required.
	Args []string
	// Listen are the sockets to pass on, in this order, from descriptor 3 on.
	Listen []Socket
	// NonBlock passes them on with O_NONBLOCK. Without, they block, as those of
	// systemd do (NonBlocking= in systemd.exec(5)).
	NonBlock bool
	// Ready says how a generation shows that it can serve.
	Ready Ready
	// ReadyTimeout bounds the time that it has for that. It must be positive.
	ReadyTimeout time.Duration
	// StopTimeout is the time from the stop signal to SIGKILL. An app that speaks
	// the notify protocol may ask for more (EXTEND_TIMEOUT_USEC). It must be
	// positive.
	StopTimeout time.Duration
	// StopSignal is the name of the signal that ends the app gracefully, such as
	// TERM or QUIT.
	StopSignal string
	// Restart says when the app is started again.
	Restart Restart
	// RestartDelay is the longest pause before the first restart. Each further one
	// doubles it, up to RestartMaxDelay; a random part of up to a half is taken
	// off. Both must be positive.
	RestartDelay, RestartMaxDelay time.Duration
	// RestartReset is how long the app must have been ready for the next restart to
	// begin with the first delay again.
	RestartReset time.Duration
	// RestartLimit is the number of restarts in a row, without RestartReset of service
	// in between, after which Run gives up. Zero means no limit.
	RestartLimit int
	// Logger gets a line for each step. nil means no log.
	Logger hclog.Logger
}

// Ready says how a generation shows that it can serve. At most one field but After
// may be set; the zero value means DefaultReadyAfter.
type Ready struct {
	// Notify waits for READY=1 (sd_notify(3)).
	Notify bool
	// Control asks the app at its control socket, as package handoff has it: the
	// generation is ready when it serves there, that is, after the commit.
	Control *control.Client
	// TCP is an address at which the generation itself must accept a connection:
	// one that another process of this machine accepts does not count.
	TCP string
	// HTTP is a URL that the generation itself must answer, by a status below 400.
	HTTP string
	// After is for how long the app must have run. READY=1 cuts it short.
	After time.Duration
}

// Default returns a configuration with all defaults, for args.
func Default(args ...string) *Config {
	return &Config{
		Args: args, ReadyTimeout: DefaultReadyTimeout, StopTimeout: DefaultStopTimeout, StopSignal: DefaultStopSignal,
		Restart: RestartOnFailure, RestartDelay: DefaultRestartDelay, RestartMaxDelay: DefaultRestartMaxDelay,
		RestartReset: DefaultRestartReset,
	}
}

// check validates the configuration.
func (c *Config) check() error {
	for _, d := range []struct {
		name string
		time time.Duration
	}{
		{"ready timeout", c.ReadyTimeout},
		{"stop timeout", c.StopTimeout},
		{"restart delay", c.RestartDelay},
		{"restart max delay", c.RestartMaxDelay},
	} {
		if d.time <= 0 {
			return fmt.Errorf("%w: %s %v: it must be more than 0", ErrConfig, d.name, d.time)
		}
	}
	switch {
	case len(c.Args) == 0 || c.Args[0] == "":
		return fmt.Errorf("%w: no app: put it after --", ErrConfig)
	case !slices.Contains(Restarts(), string(c.Restart)):
		return fmt.Errorf("%w: restart %q: it must be one of %s", ErrConfig, c.Restart, strings.Join(Restarts(), ", "))
	case c.RestartMaxDelay < c.RestartDelay:
		return fmt.Errorf("%w: restart max delay %v: it must not be less than the delay, %v", ErrConfig, c.RestartMaxDelay, c.RestartDelay)
	case c.RestartReset < 0:
		return fmt.Errorf("%w: restart reset %v: it must be 0 or more", ErrConfig, c.RestartReset)
	case c.RestartLimit < 0:
		return fmt.Errorf("%w: restart limit %d: it must be 0 or more", ErrConfig, c.RestartLimit)
	}
	if err := c.Ready.check(); err != nil {
		return err
	}
	if after := c.Ready.after(); after >= c.ReadyTimeout {
		return fmt.Errorf("%w: ready after %v: it must be less than the ready timeout, %v", ErrConfig, after, c.ReadyTimeout)
	}
	return nil
}

// after returns for how long the app must run to be ready, or 0 if readiness does not
// depend on time.
func (r *Ready) after() time.Duration {
	switch {
	case r.Notify || r.Control != nil || r.TCP != "" || r.HTTP != "":
		return 0
	case r.After == 0:
		return DefaultReadyAfter
	}
	return r.After
}

func (r *Ready) check() error {
	ways := 0
	for _, is := range []bool{r.Notify, r.Control != nil, r.TCP != "", r.HTTP != "", r.After != 0} {
		if is {
			ways++
		}
	}
	switch {
	case ways > 1:
		return fmt.Errorf("%w: give one way to be ready, not %d", ErrConfig, ways)
	case r.After < 0:
		return fmt.Errorf("%w: ready after %v: it must be 0 or more", ErrConfig, r.After)
	}
	if r.TCP != "" {
		if _, port, err := net.SplitHostPort(r.TCP); err != nil || port == "" {
			return fmt.Errorf("%w: ready tcp %q: want host:port", ErrConfig, r.TCP)
		}
	}
	if r.HTTP != "" {
		if u, err := url.Parse(r.HTTP); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("%w: ready http %q: want a URL such as http://127.0.0.1:8080/healthz", ErrConfig, r.HTTP)
		}
	}
	return nil
}
