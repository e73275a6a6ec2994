package stateblob

import (
	"fmt"
	"os"
	"sync"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
)

// Received holds the blobs that a predecessor has written until the program takes them.
// The zero value has none.
type Received struct {
	mu    sync.Mutex
	files map[string]*os.File
}

// Add takes ownership of the files of blobs.
func (r *Received) Add(blobs []session.Blob) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files == nil {
		r.files = make(map[string]*os.File)
	}
	for _, b := range blobs {
		if old := r.files[b.Name]; old != nil {
			_ = old.Close() // sent twice: the last one counts
		}
		r.files[b.Name] = b.File
	}
}

// Take gives the blob of a name to the caller, once. The error matches [os.ErrNotExist]
// where there is none.
func (r *Received) Take(name string) (*os.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.files[name]
	if f == nil {
		return nil, fmt.Errorf("handoff: state %q: %w", name, os.ErrNotExist)
	}
	delete(r.files, name)
	return f, nil
}

// Close closes the blobs that the program has not taken.
func (r *Received) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.files {
		_ = f.Close() // it is memory
	}
	clear(r.files)
}
