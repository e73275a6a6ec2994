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

// A Provider is a public StateProvider.
type Provider struct {
	Write  func(ctx context.Context, w io.Writer) error
	Failed func(err error)
}

type named struct {
	name string
	Provider
}

// Providers are the providers of a process. The zero value has none.
type Providers struct {
	mu  sync.Mutex
	all []named // in the order in which their names came
}

// Provide adds a provider, or replaces the one of that name. One without Write is removed.
func (s *Providers) Provide(name string, p Provider) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.all, func(n named) bool { return n.name == name })
	switch {
	case p.Write == nil && i >= 0:
		s.all = slices.Delete(s.all, i, i+1)
	case p.Write == nil:
	case i >= 0:
		s.all[i].Provider = p
	default:
		s.all = append(s.all, named{name, p})
	}
}

// Begin returns the providers as they are at the start of an upgrade.
func (s *Providers) Begin() *Transfer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Transfer{all: slices.Clone(s.all)}
}

// A Transfer is the state of one upgrade. One goroutine uses it at a time.
type Transfer struct {
	all    []named
	called int // providers whose Write was called
}

// Len returns the number of blobs. A nil Transfer has none.
func (t *Transfer) Len() int {
	if t == nil {
		return 0
	}
	return len(t.all)
}

// Write calls Write of each provider. The caller closes the files, on an error too.
func (t *Transfer) Write(ctx context.Context) ([]session.Blob, error) {
	var blobs []session.Blob
	for _, n := range t.all {
		f, err := fdx.NewBlob(n.name)
		if err != nil {
			return blobs, fmt.Errorf("state %q: %w", n.name, err)
		}
		blobs = append(blobs, session.Blob{Name: n.name, File: f})
		t.called++
		size, err := fill(ctx, f, n.Provider)
		if err != nil {
			return blobs, fmt.Errorf("state %q: %w", n.name, err)
		}
		blobs[len(blobs)-1].Size = size
	}
	return blobs, nil
}

// fill has p write into f, and leaves it sealed and at its start.
func fill(ctx context.Context, f *os.File, p Provider) (size uint64, err error) {
	if err := p.Write(ctx, f); err != nil {
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

// Failed calls Failed of each provider whose Write was called. It has no effect on a nil
// Transfer.
func (t *Transfer) Failed(reason error) {
	if t == nil {
		return
	}
	for _, n := range t.all[:t.called] {
		if n.Failed != nil {
			n.Failed(reason)
		}
	}
}
