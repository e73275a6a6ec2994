package handoff_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// newMailbox returns a mailbox, and the other end of what is in it.
func newMailbox(t *testing.T) (*os.File, *net.UnixConn) {
	t.Helper()
	box, ours, err := handoff.NewMailbox()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = box.Close()
		_ = ours.Close()
	})
	return box, ours
}

// TestMailbox has a connection's end hear of the other's close, whoever still has
// the mailbox that this was in.
func TestMailbox(t *testing.T) {
	box, ours := newMailbox(t)
	theirs, err := handoff.OpenMailbox(box)
	if err != nil || theirs == nil {
		t.Fatalf("OpenMailbox: %v, %v", theirs, err)
	}
	if _, err := theirs.Write([]byte("word")); err != nil {
		t.Fatal(err)
	}
	// Who has a copy can do this.
	if err := fdx.Borrow(box, func(fd int) error { return unix.SetNonblock(fd, false) }); err != nil {
		t.Fatal(err)
	}
	if again, err := handoff.OpenMailbox(box); again != nil || err != nil {
		t.Errorf("OpenMailbox again: %v, %v, want nothing", again, err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	if word, err := io.ReadAll(ours); string(word) != "word" || err != nil {
		t.Errorf("read %q, %v, want what was written, and the end", word, err)
	}
}

// TestMailboxFull opens a mailbox with no descriptor left, and what is none.
func TestMailboxFull(t *testing.T) {
	box, _ := newMailbox(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := handoff.OpenMailbox(box)
	_, _, newErr := handoff.NewMailbox()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, handoff.ErrTransfer) || !errors.Is(err, unix.EMFILE) {
		t.Errorf("OpenMailbox: %v, want ErrTransfer and EMFILE", err)
	}
	if !errors.Is(newErr, unix.EMFILE) {
		t.Errorf("NewMailbox: %v, want EMFILE", newErr)
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if c, err := handoff.OpenMailbox(r); c != nil || !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("a pipe: %v, %v, want ENOTSOCK", c, err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := os.NewFile(uintptr(fds[0]), "no mailbox")
	defer other.Close()
	if _, err := unix.Write(fds[1], []byte("word")); err != nil {
		t.Fatal(err)
	}
	if err := fdx.Close(fds[1]); err != nil {
		t.Fatal(err)
	}
	if c, err := handoff.OpenMailbox(other); c != nil || !errors.Is(err, handoff.ErrTransfer) {
		t.Errorf("no descriptor in it: %v, %v, want ErrTransfer", c, err)
	}
}
