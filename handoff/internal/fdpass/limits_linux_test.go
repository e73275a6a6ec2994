package fdpass_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// TestManyDescriptors sends 10,000 descriptors in frames that are acknowledged
// one by one, as the conversation does.
func TestManyDescriptors(t *testing.T) {
	t.Parallel()
	a, b := conns(t)
	w := newWitness(t)
	const total = 10_000
	var wg sync.WaitGroup
	wg.Go(func() {
		for left := total; left > 0; {
			n := min(left, fdpass.MaxFDs)
			if err := a.Send(1, make([]byte, 80*n), w.times(n)); err != nil {
				t.Errorf("Send: %v", err)
				return
			}
			if f, err := a.Recv(); err != nil || f.Type != 2 {
				t.Errorf("acknowledgement = %+v, %v", f, err)
				return
			}
			left -= n
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	got := 0
	for {
		f, err := b.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got += len(f.FDs)
		// Closed at once: the test does not depend on RLIMIT_NOFILE.
		if err := fdx.Close(f.FDs...); err != nil {
			t.Error(err)
		}
		if err := b.Send(2, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if got != total {
		t.Errorf("%d descriptors arrived, want %d", got, total)
	}
	w.wantGone(t)
}

func TestShortLimit(t *testing.T) {
	t.Parallel()
	runHelper(t, "short-limit")
}

func TestManyInFlight(t *testing.T) {
	t.Parallel()
	runHelper(t, "many-in-flight")
}

// manyInFlight sends without privilege until the kernel refuses, takes what is
// in flight, and goes on.
func manyInFlight() error {
	raw, end, err := socketpair()
	if err != nil {
		return err
	}
	a, b := fdpass.New(raw), fdpass.New(end)
	const limit = 64
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		if err := syscall.Setuid(65534); err != nil {
			return err
		}
	}
	wfd, err := fdx.Number(raw)
	if err != nil {
		return err
	}
	fds := slices.Repeat([]int{wfd}, limit/2)
	sent := 0
	for ; err == nil; sent++ {
		if sent > 10 {
			return fmt.Errorf("%d descriptors in flight, limit %d", sent*len(fds), limit)
		}
		err = a.Send(1, []byte("many"), fds)
	}
	sent--
	if !errors.Is(err, syscall.ETOOMANYREFS) {
		return fmt.Errorf("Send = %v, want ETOOMANYREFS", err)
	}
	for range sent {
		f, err := b.Recv()
		if err != nil || string(f.Payload) != "many" || len(f.FDs) != len(fds) {
			return fmt.Errorf("Recv = %+v, %v", f, err)
		}
		if err := fdx.Close(f.FDs...); err != nil {
			return err
		}
	}
	if err := a.Send(2, []byte("again"), fds); err != nil {
		return fmt.Errorf("Send after the peer took all = %w", err)
	}
	if f, err := b.Recv(); err != nil || f.Type != 2 || string(f.Payload) != "again" {
		return fmt.Errorf("Recv = %+v, %v, want the frame sent last", f, err)
	}
	return nil
}

// shortLimit receives 253 descriptors with room for 34 and for none.
func shortLimit() error {
	raw, end, err := socketpair()
	if err != nil {
		return err
	}
	a, b := fdpass.New(raw), fdpass.New(end)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	wfd, err := fdx.Number(w)
	if err != nil {
		return err
	}
	fds := slices.Repeat([]int{wfd}, fdpass.MaxFDs)
	free, err := fdx.DupFD(wfd) // the lowest free number; a few above it may be taken
	if err != nil {
		return err
	}
	if err := fdx.Close(free); err != nil {
		return err
	}
	for _, room := range []int{34, 0, fdpass.MaxFDs - 16} {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free + room), Max: 5000}); err != nil {
			return err
		}
		if err := a.Send(1, []byte("many"), fds); err != nil {
			return err
		}
		if err := a.Send(2, []byte("none"), nil); err != nil {
			return err
		}
		f, err := b.Recv()
		if !errors.Is(err, fdpass.ErrTruncated) || !errors.Is(err, unix.EMFILE) || f.FDs != nil {
			return fmt.Errorf("room for %d: Recv = %+v, %v, want ErrTruncated and EMFILE", room, f, err)
		}
		if f, err = b.Recv(); err != nil || f.Type != 2 || string(f.Payload) != "none" {
			return fmt.Errorf("room for %d: next Recv = %+v, %v", room, f, err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free + fdpass.MaxFDs + 16), Max: 5000}); err != nil {
		return err
	}
	if err := a.Send(3, nil, fds); err != nil {
		return err
	}
	f, err := b.Recv()
	if err != nil || len(f.FDs) != fdpass.MaxFDs {
		return fmt.Errorf("room for all: %d descriptors, %v", len(f.FDs), err)
	}
	if err := errors.Join(fdx.Close(f.FDs...), w.Close()); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("read = %v, want EOF: a descriptor is still open", err)
	}
	return nil
}
