package trust

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// An Error says why a folder is not to be relied on. It matches [os.ErrPermission].
type Error struct{ text string }

func (e *Error) Error() string { return e.text }

// Unwrap returns [os.ErrPermission].
func (e *Error) Unwrap() error { return os.ErrPermission }

// MakeFolder makes the folder at path with mode 0700, and those above it that are
// missing, and checks all of them: an error says that another user could replace what is
// in the folder, or reach it. A user that may write into one of them can do so, and one
// that owns one, or a link that leads there. The sticky bit protects what is in root's
// folders alone: it does not bind the owner of a folder.
func MakeFolder(path string) error {
	if _, err := walk(path, true, 0); err != nil {
		return err
	}
	fi, err := os.Lstat(path)
	switch {
	case err != nil:
	case fi.IsDir() && fi.Mode().Perm()&0o002 != 0: // as /tmp, which has to stay so
		err = fmt.Errorf("every user can write to the folder %s: choose a ControlSocket in a folder of its own, such as %s: New makes it", path, filepath.Join(path, "NAME", "control.sock"))
	case !fi.IsDir():
		err = fmt.Errorf("%s is no folder", path) // a link
	case fi.Mode().Perm()&0o077 != 0:
		err = fmt.Errorf("folder %s has mode %#o: others could reach what is in it: chmod 700 it, or choose a ControlSocket in a folder of its own", path, fi.Mode().Perm())
	}
	return err
}

// CheckFolder returns an error if a user other than root, this process's or owner could
// replace what is in the folder at path.
func CheckFolder(path string, owner int) error {
	_, err := walk(path, false, owner)
	return err
}

// maxLinks is that of path_resolution(7).
const maxLinks = 40

// walk goes through the folders to path, and returns it without links.
func walk(path string, makes bool, owner int) (string, error) {
	at, links := "/", 0
	for rest := split(path); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		fi, err := os.Lstat(next)
		if errors.Is(err, os.ErrNotExist) && makes {
			mode := os.FileMode(0o755)
			if len(rest) == 0 {
				mode = 0o700
			}
			if err := os.Mkdir(next, mode); err != nil && !errors.Is(err, os.ErrExist) {
				return "", err
			}
			fi, err = os.Lstat(next)
		}
		if err == nil {
			err = check(next, fi, owner)
		}
		switch {
		case err != nil:
			return "", err
		case fi.Mode()&os.ModeSymlink == 0:
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", &os.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = slices.Concat(split(target), rest)
	}
	return at, nil
}

func split(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}

// check checks a folder, or a link, on the way.
func check(path string, fi os.FileInfo, owner int) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: its owner is unknown", path)
	}
	uid, link := int(st.Uid), fi.Mode()&os.ModeSymlink != 0
	root := uid == 0 || roots(path, uid)
	switch {
	case !link && !fi.IsDir():
		return fmt.Errorf("%s is no folder", path)
	case !root && !owns(path, st) && (owner == 0 || uid != owner):
		return &Error{fmt.Sprintf("folder %s belongs to uid %d, and this process to uid %d: run both as one user, or choose another folder", path, uid, os.Geteuid())}
	case link:
	case fi.Mode().Perm()&0o022 == 0, root && fi.Mode()&os.ModeSticky != 0:
	default:
		return &Error{fmt.Sprintf("folder %s has mode %#o: others could replace what is below it: chmod go-w it, or choose another folder", path, fi.Mode().Perm())}
	}
	return nil
}

// owns reports whether the file at path is this process's. The numbers may be equal
// where the owners are not (see User), but only the owner may set the times of a file
// (utimensat(2)).
func owns(path string, st *syscall.Stat_t) bool {
	uid := int(st.Uid)
	if uid != os.Geteuid() || User(uid) {
		return uid == os.Geteuid()
	}
	now := []unix.Timespec{{Sec: st.Atim.Sec, Nsec: st.Atim.Nsec}, {Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, now, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// roots reports whether the folder at path is root's where the user namespace does not
// map root: on each system these are.
func roots(path string, uid int) bool {
	well := []string{"/dev", "/dev/shm", "/home", "/run", "/run/user", "/tmp", "/var", "/var/run", "/var/tmp"}
	return uid == overflow() && slices.Contains(well, path) && !mapsRoot()
}
