package signals

import (
	"os"
	"os/signal"
	"slices"
	"sync"
)

// A Relay receives signals of the process. One goroutine calls its methods.
type Relay struct {
	// Stops and Upgrades receive signals from Begin on.
	Stops, Upgrades chan os.Signal

	stops, upgrades []os.Signal
	begun           bool
	notify          sync.WaitGroup
}

// New returns a relay of signals. It receives none before Begin.
func New(stops, upgrades []os.Signal) *Relay {
	return &Relay{
		Stops: make(chan os.Signal, 8), Upgrades: make(chan os.Signal, 8),
		stops: stops, upgrades: upgrades,
	}
}

// Begin begins to receive the signals, if it was not called before. One that the process
// ignores stays ignored: a shell starts a background process with SIGINT ignored, nohup
// with SIGHUP, and a successor inherits that (os/signal; execve(2)). The runtime sets a
// handler for each of the others, which takes longer than a predecessor needs for its
// answer, so Begin does not wait for that: Wait does.
func (r *Relay) Begin() {
	if r.begun {
		return
	}
	r.begun = true
	r.notify.Go(func() {
		notify(r.Stops, r.stops)
		notify(r.Upgrades, r.upgrades)
	})
}

func notify(to chan<- os.Signal, all []os.Signal) {
	if all = slices.DeleteFunc(slices.Clone(all), signal.Ignored); len(all) > 0 { // none would mean all
		signal.Notify(to, all...)
	}
}

// Wait returns when the signals are received.
func (r *Relay) Wait() { r.notify.Wait() }

// PutBack puts a stop signal that was received back into Stops.
func (r *Relay) PutBack(sig os.Signal) {
	select {
	case r.Stops <- sig:
	default: // Stops has others
	}
}

// End receives no more signals.
func (r *Relay) End() {
	r.Wait()
	signal.Stop(r.Stops)
	signal.Stop(r.Upgrades)
}

// GiveBack restores the dispositions of the signals, and raises those again that are in
// Stops.
func (r *Relay) GiveBack() {
	if !r.begun {
		return
	}
	r.End()
	close(r.Stops)
	for sig := range r.Stops {
		raise(sig)
	}
}
