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
	mu   sync.Mutex
	path string
}

func newPIDFile(path string) *pidFile { return &pidFile{path: path} }

// write puts our process ID into the file, atomically: a reader sees the old
// one or the new one.
func (p *pidFile) write() error {
	if p.path == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ours() {
		return nil
	}
	if err := p.replace(); err != nil {
		return fmt.Errorf("handoff: PID file: %w", err)
	}
	return nil
}

func (p *pidFile) replace() (err error) {
	f, err := os.CreateTemp(filepath.Dir(p.path), "."+filepath.Base(p.path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // best effort: the error says more
		}
	}()
	_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), p.path)
}

// remove removes the file if it names us.
func (p *pidFile) remove() error {
	if p.path == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ours() {
		return nil
	}
	return os.Remove(p.path)
}

func (p *pidFile) ours() bool {
	text, err := os.ReadFile(p.path)
	return err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(os.Getpid())
}
