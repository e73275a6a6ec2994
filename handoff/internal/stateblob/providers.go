package stateblob

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A WriteFunc writes the state of a name to w.
type WriteFunc func(ctx context.Context, w io.Writer) error

type named struct {
	name  string
	write WriteFunc
}

// Providers are the providers of a process. The zero value has none.
type Providers struct {
	mu  sync.Mutex
	all []named // in the order in which their names came
}

// Provide adds write, or replaces the one of that name; nil removes it.
func (s *Providers) Provide(name string, write WriteFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.all, func(n named) bool { return n.name == name })
	switch {
	case write == nil && i >= 0:
		s.all = slices.Delete(s.all, i, i+1)
	case write == nil:
	case i >= 0:
		s.all[i].write = write
	default:
		s.all = append(s.all, named{name, write})
	}
}

// Begin returns the providers as they are at the start of an upgrade.
func (s *Providers) Begin() *Transfer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Transfer{all: slices.Clone(s.all)}
}

// A Transfer is the state of one upgrade. One goroutine uses it at a time.
type Transfer struct{ all []named }

// Len returns the number of blobs. A nil Transfer has none.
func (t *Transfer) Len() int {
	if t == nil {
		return 0
	}
	return len(t.all)
}

// Write writes the state of each name. The caller closes the files, on an error too.
func (t *Transfer) Write(ctx context.Context) ([]session.Blob, error) {
	var blobs []session.Blob
	for _, n := range t.all {
		f, err := fdx.NewBlob(n.name)
		if err != nil {
			return blobs, fmt.Errorf("state %q: %w", n.name, err)
		}
		blobs = append(blobs, session.Blob{Name: n.name, File: f})
		size, err := fill(ctx, f, n.write)
		if err != nil {
			return blobs, fmt.Errorf("state %q: %w", n.name, err)
		}
		blobs[len(blobs)-1].Size = size
	}
	return blobs, nil
}

// fill has write write into f, and leaves it sealed and at its start.
func fill(ctx context.Context, f *os.File, write WriteFunc) (size uint64, err error) {
	if err := write(ctx, f); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	if err := fdx.Seal(f); err != nil {
		return 0, err
	}
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return uint64(fi.Size()), nil
}
