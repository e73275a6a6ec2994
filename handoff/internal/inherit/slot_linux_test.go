package inherit_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/inherit"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// newSlot returns a slot, and the other end of what is in it.
func newSlot(t *testing.T) (*os.File, *net.UnixConn) {
	t.Helper()
	slot, ours, err := inherit.NewSlot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = slot.Close()
		_ = ours.Close()
	})
	return slot, ours
}

// TestSlot closes the end of a connection that was in a slot: the other end reads the
// end of the stream, although copies of the slot are open.
func TestSlot(t *testing.T) {
	slot, ours := newSlot(t)
	theirs, err := inherit.TakeSlot(slot)
	if err != nil || theirs == nil {
		t.Fatalf("TakeSlot: %v, %v", theirs, err)
	}
	if _, err := theirs.Write([]byte("word")); err != nil {
		t.Fatal(err)
	}
	// A process that has a copy can do this.
	if err := fdx.Borrow(slot, func(fd int) error { return unix.SetNonblock(fd, false) }); err != nil {
		t.Fatal(err)
	}
	if again, err := inherit.TakeSlot(slot); again != nil || err != nil {
		t.Errorf("TakeSlot again: %v, %v, want nothing", again, err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	if word, err := io.ReadAll(ours); string(word) != "word" || err != nil {
		t.Errorf("read %q, %v, want what was written, and the end", word, err)
	}
}

// TestSlotErrors empties a slot when no descriptor is left, and files that are no slot.
func TestSlotErrors(t *testing.T) {
	slot, _ := newSlot(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := inherit.TakeSlot(slot)
	_, _, newErr := inherit.NewSlot()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, failure.Transfer) || !errors.Is(err, unix.EMFILE) {
		t.Errorf("TakeSlot: %v, want failure.Transfer and EMFILE", err)
	}
	if !errors.Is(newErr, unix.EMFILE) {
		t.Errorf("NewSlot: %v, want EMFILE", newErr)
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if c, err := inherit.TakeSlot(r); c != nil || !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("a pipe: %v, %v, want ENOTSOCK", c, err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := os.NewFile(uintptr(fds[0]), "no slot")
	defer other.Close()
	if _, err := unix.Write(fds[1], []byte("word")); err != nil {
		t.Fatal(err)
	}
	if err := fdx.Close(fds[1]); err != nil {
		t.Fatal(err)
	}
	if c, err := inherit.TakeSlot(other); c != nil || !errors.Is(err, failure.Transfer) {
		t.Errorf("no descriptor in it: %v, %v, want failure.Transfer", c, err)
	}
}
