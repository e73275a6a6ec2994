package fdx_test

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestRaiseNoFile(t *testing.T) {
	t.Parallel()
	if out, err := testmain.Command(t, "raise").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// raise lowers the limits of its process and has them raised.
func raise() error {
	set := func(cur, max uint64) error {
		return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: cur, Max: max})
	}
	cur := func() uint64 {
		var lim unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
			panic(err)
		}
		return lim.Cur
	}
	listed, err := fdx.CountListed()
	if err != nil {
		return err
	}
	if open, err := fdx.CountOpen("/proc/self/fd"); err != nil || open != listed {
		return fmt.Errorf("countOpen = %d, %v, want %d", open, err, listed)
	}

	if err := set(100, 400); err != nil {
		return err
	}
	if err := fdx.RaiseNoFile(100 - listed); err != nil || cur() != 100 {
		return fmt.Errorf("what fits: %v, limit %d, want no error and 100", err, cur())
	}
	if err := fdx.RaiseNoFile(100 - listed + 1); err != nil || cur() != 400 {
		return fmt.Errorf("one more: %v, limit %d, want no error and 400", err, cur())
	}
	if err := set(100, 400); err != nil {
		return err
	}
	if err := fdx.RaiseNoFile(400); !errors.Is(err, unix.EMFILE) || cur() != 400 {
		return fmt.Errorf("too many: %v, limit %d, want EMFILE and 400", err, cur())
	}
	if err := set(100, 400); err != nil {
		return err
	}
	if err := fdx.RaiseIn(1000, "/none/self/fd"); err != nil || cur() != 400 {
		return fmt.Errorf("without proc: %v, limit %d, want no error and 400", err, cur())
	}
	return nil
}
