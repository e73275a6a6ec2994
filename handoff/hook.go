package handoff

import (
	"runtime"
	"strings"
	"sync"

	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
)

// A hook calls Config.OnEvent for each event, in a goroutine of its own. A nil one has
// no function to call.
type hook struct {
	f      func(Event)
	events *operate.Subscriber

	ended    chan struct{} // closed when run has returned
	shutdown chan struct{} // closed when f has called Shutdown
	once     sync.Once     // closes shutdown
}

func newHook(f func(Event), events *operate.Subscriber) *hook {
	return &hook{f: f, events: events, ended: make(chan struct{}), shutdown: make(chan struct{})}
}

func (h *hook) run() {
	defer close(h.ended)
	h.events.Each(h.call)
}

func (h *hook) call(e operate.Event) {
	if e, ok := e.Value.(Event); ok {
		h.f(e)
	}
}

// enterShutdown notes that Shutdown begins. One that f has called can't wait for f, nor
// can another that runs at the same time: f waits for its result.
func (h *hook) enterShutdown() {
	if h != nil && inCall() {
		h.once.Do(func() { close(h.shutdown) })
	}
}

// inCall reports whether a function that a hook calls is on this goroutine's stack.
func inCall() bool {
	pcs := make([]uintptr, 256)
	for skip := 0; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		frames := runtime.CallersFrames(pcs[:n])
		for more := n > 0; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if strings.HasSuffix(f.Function, "/handoff.(*hook).call") {
				return true
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}

// wait waits for the last call of f, unless that waits for Shutdown.
func (h *hook) wait() {
	if h == nil {
		return
	}
	select {
	case <-h.ended:
	case <-h.shutdown:
	}
}
