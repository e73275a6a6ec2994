package pidfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A File is a PID file. A nil one does nothing.
type File struct {
	path string
	// next is the file that is renamed to path. All processes of a service use one
	// name for it, so that a predecessor can remove what a killed successor has left.
	next string
	mu   sync.Mutex
	gone bool // Remove was called
}

// At returns the PID file at path, or nil if path is empty.
func At(path string) *File {
	if path == "" {
		return nil
	}
	return &File{path: path, next: filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".next")}
}

// Stage writes the file that Write renames.
func (f *File) Stage() error {
	return f.do(f.stage)
}

// Write makes the file name this process. A reader sees the old content or the new one.
// After Remove it does nothing: the two may come from several goroutines.
func (f *File) Write() error {
	return f.do(func() error {
		if f.gone || namesUs(f.path) {
			return nil
		}
		if !namesUs(f.next) { // not staged, or another process has removed it since
			if err := f.stage(); err != nil {
				return err
			}
		}
		return os.Rename(f.next, f.path)
	})
}

// Unstage removes what Stage of this process has written.
func (f *File) Unstage() error {
	return f.do(func() error { return removeOurs(f.next) })
}

// Clean removes what a successor that has failed has staged.
func (f *File) Clean() error {
	return f.do(func() error { return remove(f.next) })
}

// Remove removes the file if it names this process, which ends.
func (f *File) Remove() error {
	return f.do(func() error {
		f.gone = true
		return removeOurs(f.path)
	})
}

// do calls change where there is a file, one call at a time, and again after an error
// that may pass.
func (f *File) do(change func() error) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	err := change()
	for tries := 1; passes(err) && tries < maxTries; tries++ {
		time.Sleep(retryPause)
		err = change()
	}
	if err != nil {
		return fmt.Errorf("handoff: PID file: %w", err)
	}
	return nil
}

// A file whose change fails once would name a process that has ended for the whole life
// of its successor.
const (
	maxTries   = 4
	retryPause = 5 * time.Millisecond
)

// passes reports whether the system was short of something for a moment. A full disk and
// a missing permission do not pass so soon.
func passes(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains([]syscall.Errno{
		syscall.ENOMEM, syscall.ENOBUFS, syscall.EMFILE, syscall.ENFILE, syscall.EINTR, syscall.EAGAIN, syscall.EIO,
	}, errno)
}

func (f *File) stage() error {
	// The rename would replace a device or a named pipe. To open one could wait for ever.
	if fi, err := os.Stat(f.path); err == nil && !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file but %v: remove it, or choose another PIDFile", f.path, fi.Mode())
	}
	if err := remove(f.next); err != nil {
		return f.explain(err)
	}
	file, err := os.OpenFile(f.next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return f.explain(err)
	}
	_, err = fmt.Fprintf(file, "%d\n", os.Getpid())
	// Chmod, because the umask may have taken bits away.
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		_ = os.Remove(f.next) // the error says more
	}
	return err
}

// explain says what to do about a file that can't be made.
func (f *File) explain(err error) error {
	dir := filepath.Dir(f.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: there is no folder %s: make it, or choose another PIDFile: %w", f.path, dir, err)
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s: uid %d can't write to the folder %s: choose another PIDFile: %w", f.path, os.Geteuid(), dir, err)
	}
	return err
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func removeOurs(path string) error {
	if !namesUs(path) {
		return nil
	}
	return os.Remove(path)
}

// namesUs reports whether a file holds the ID of this process.
func namesUs(path string) bool {
	if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() {
		return false
	}
	text, err := os.ReadFile(path)
	return err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(os.Getpid())
}
