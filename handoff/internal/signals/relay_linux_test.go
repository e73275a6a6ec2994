package signals_test

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/signals"
)

const patience = 10 * time.Second

// TestGiveBack receives a stop signal while another handler waits for it, too, and gives
// it back: the handler gets it again. A signal that the process ignores stays ignored.
func TestGiveBack(t *testing.T) {
	signal.Ignore(syscall.SIGWINCH)
	defer signal.Reset(syscall.SIGWINCH)
	r := signals.New([]os.Signal{syscall.SIGUSR1, syscall.SIGWINCH}, nil)
	other := make(chan os.Signal, 2)
	signal.Notify(other, syscall.SIGUSR1)
	defer signal.Stop(other)
	receive := func(from <-chan os.Signal) os.Signal {
		t.Helper()
		select {
		case s := <-from:
			return s
		case <-time.After(patience):
			t.Fatal("no signal")
			return nil
		}
	}
	r.Begin()
	r.Begin()
	r.Wait()
	if !signal.Ignored(syscall.SIGWINCH) {
		t.Error("SIGWINCH is not ignored any more")
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	receive(other)
	r.PutBack(receive(r.Stops))
	r.GiveBack()
	if got := receive(other); got != syscall.SIGUSR1 {
		t.Errorf("%v was raised again, want SIGUSR1", got)
	}
	if !signal.Ignored(syscall.SIGWINCH) {
		t.Error("SIGWINCH is not ignored afterwards")
	}
}

// TestNone receives no signal where none is asked for.
func TestNone(t *testing.T) {
	r := signals.New([]os.Signal{}, []os.Signal{})
	r.Begin()
	r.Wait()
	own := make(chan os.Signal, 1)
	signal.Notify(own, syscall.SIGUSR2)
	defer signal.Stop(own)
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	select {
	case <-own:
	case <-time.After(patience):
		t.Fatal("no signal")
	}
	r.End()
	if len(r.Stops)+len(r.Upgrades) > 0 {
		t.Error("the relay has received a signal")
	}
	signals.New(nil, nil).GiveBack() // not begun
}
