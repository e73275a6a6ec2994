package handoff

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// pidFile is the file that names the process that serves. A zero path makes
// all calls do nothing.
type pidFile struct {
	mu     sync.Mutex
	path   string
	staged bool // next names us
}

func newPIDFile(path string) *pidFile { return &pidFile{path: path} }

// next is the file that takes the place of the PID file. It has one name,
// whoever writes it, so that the process that has it written by a successor
// can remove what one that was killed has left.
func (p *pidFile) next() string {
	return filepath.Join(filepath.Dir(p.path), "."+filepath.Base(p.path)+".next")
}

// stage writes what write puts into place. All that can be refused, for want of
// space or of a permission, is refused here, while an upgrade can still fail.
func (p *pidFile) stage() error {
	if p.path == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.stageLocked(); err != nil {
		return fmt.Errorf("handoff: PID file: %w", err)
	}
	return nil
}

func (p *pidFile) stageLocked() error {
	next := p.next()
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	// The umask has had its say about the mode.
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		_ = os.Remove(next) // best effort: the error says more
		return err
	}
	p.staged = true
	return nil
}

// write puts our process ID into the file, atomically: a reader sees the old
// one or the new one.
func (p *pidFile) write() error {
	if p.path == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if names(p.path) {
		return nil
	}
	if err := p.writeLocked(); err != nil {
		return fmt.Errorf("handoff: PID file: %w", err)
	}
	return nil
}

func (p *pidFile) writeLocked() error {
	// Somebody may have removed it, or written another.
	if !p.staged || !names(p.next()) {
		if err := p.stageLocked(); err != nil {
			return err
		}
	}
	p.staged = false
	return os.Rename(p.next(), p.path)
}

// unstage removes what stage has written.
func (p *pidFile) unstage() error {
	if p.path == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.staged {
		return nil
	}
	p.staged = false
	return removeOurs(p.next())
}

// clean removes what a successor that has failed has written, which may have had
// no chance to.
func (p *pidFile) clean() error {
	if p.path == "" {
		return nil
	}
	if err := os.Remove(p.next()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("handoff: PID file: %w", err)
	}
	return nil
}

// remove removes the file if it names us.
func (p *pidFile) remove() error {
	if p.path == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return removeOurs(p.path)
}

func removeOurs(path string) error {
	if !names(path) {
		return nil
	}
	return os.Remove(path)
}

// names reports whether the file names this process.
func names(path string) bool {
	text, err := os.ReadFile(path)
	return err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(os.Getpid())
}
