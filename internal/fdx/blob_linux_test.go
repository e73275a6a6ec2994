package fdx_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

func TestBlob(t *testing.T) {
	t.Parallel()
	f, err := fdx.NewBlob("state")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := fdx.Number(f)
	if err != nil {
		t.Fatal(err)
	}
	if flags(t, fd, unix.F_GETFD)&unix.FD_CLOEXEC == 0 {
		t.Error("blob lacks FD_CLOEXEC")
	}
	if _, err := f.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	if ok, err := fdx.Sealed(fd); ok || err != nil {
		t.Errorf("Sealed before Seal = %v, %v, want false, nil", ok, err)
	}
	if err := fdx.Seal(f); err != nil {
		t.Fatal(err)
	}
	if ok, err := fdx.Sealed(fd); !ok || err != nil {
		t.Errorf("Sealed after Seal = %v, %v, want true, nil", ok, err)
	}
	for name, err := range map[string]error{
		"write":  func() error { _, err := f.WriteAt([]byte("H"), 0); return err }(),
		"grow":   f.Truncate(10),
		"shrink": f.Truncate(1),
		"seal":   fdx.Seal(f),
	} {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%s of a sealed blob = %v, want EPERM", name, err)
		}
	}
}

// TestSealedPart shows that a blob that only has some of the seals doesn't
// count as sealed.
func TestSealedPart(t *testing.T) {
	t.Parallel()
	for _, missing := range []int{unix.F_SEAL_WRITE, unix.F_SEAL_GROW, unix.F_SEAL_SHRINK, unix.F_SEAL_SEAL} {
		f, err := fdx.NewBlob("part")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd, err := fdx.Number(f)
		if err != nil {
			t.Fatal(err)
		}
		all := unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, all&^missing); err != nil {
			t.Fatal(err)
		}
		if ok, err := fdx.Sealed(fd); ok || err != nil {
			t.Errorf("Sealed without seal %#x = %v, %v, want false, nil", missing, ok, err)
		}
	}
}

func TestSealedNoBlob(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fd, err := fdx.Number(r)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := fdx.Sealed(fd); ok || err != nil {
		t.Errorf("Sealed(pipe) = %v, %v, want false, nil", ok, err)
	}
	if _, err := fdx.Sealed(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("Sealed(-1) = %v, want EBADF", err)
	}
}
