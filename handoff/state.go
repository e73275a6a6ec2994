package handoff

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

// A StateProvider gives a successor what a process knows.
type StateProvider struct {
	// Write writes the state to w, of any size. It is called once an upgrade,
	// while this process still serves, from a goroutine of the upgrade's, and
	// must return when ctx ends. An error fails the upgrade. Required.
	Write func(ctx context.Context, w io.Writer) error
	// Failed is called when Write was called and the upgrade has failed, with
	// the reason: this process serves on. nil means nothing to do.
	Failed func(err error)
}

// ProvideState registers a state blob under a name, which the successor gets by
// [Upgrader.State]. A provider that is already registered under that name is
// replaced; one without Write is removed. It has no effect on an upgrade that
// is under way.
func (u *Upgrader) ProvideState(name string, p StateProvider) { u.states.provide(name, p) }

// State returns the state blob that the predecessor has written under name: an
// open file at its start, sealed against changes, in memory (memfd_create(2)).
// The caller closes it. It returns an error that matches [os.ErrNotExist] if
// there is none, if it was fetched before, or if the upgrade is committed: what
// nobody has asked for by then is gone.
func (u *Upgrader) State(name string) (*os.File, error) { return u.states.take(name) }

// states are the blobs of both sides.
type states struct {
	mu        sync.Mutex
	order     []string
	providers map[string]StateProvider
	written   []StateProvider // in the upgrade under way
	arrived   map[string]*os.File
}

func newStates() *states {
	return &states{providers: make(map[string]StateProvider), arrived: make(map[string]*os.File)}
}

func (s *states) provide(name string, p StateProvider) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.providers[name]
	switch {
	case p.Write == nil:
		delete(s.providers, name)
		s.order = slices.DeleteFunc(s.order, func(n string) bool { return n == name })
	case known:
		s.providers[name] = p
	default:
		s.providers[name] = p
		s.order = append(s.order, name)
	}
}

// namedProvider is a provider with its blob's name.
type namedProvider struct {
	name string
	p    StateProvider
}

// snapshot returns the providers as they are at the start of an upgrade.
func (s *states) snapshot() []namedProvider {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []namedProvider
	for _, name := range s.order {
		if p, ok := s.providers[name]; ok {
			all = append(all, namedProvider{name, p})
		}
	}
	return all
}

// write has the states written. The caller closes the files, on an error too.
func (s *states) write(ctx context.Context, all []namedProvider) ([]session.Blob, error) {
	var blobs []session.Blob
	for _, n := range all {
		f, err := fdx.NewBlob(n.name)
		if err != nil {
			return blobs, fmt.Errorf("state %q: %w", n.name, err)
		}
		s.mu.Lock()
		s.written = append(s.written, n.p)
		s.mu.Unlock()
		blobs = append(blobs, session.Blob{Name: n.name, File: f})
		if err := fill(ctx, f, n.p); err != nil {
			return blobs, fmt.Errorf("state %q: %w", n.name, err)
		}
		fi, err := f.Stat()
		if err != nil {
			return blobs, fmt.Errorf("state %q: %w", n.name, err)
		}
		blobs[len(blobs)-1].Size = uint64(fi.Size())
	}
	return blobs, nil
}

// fill has p write into f, and leaves it sealed and at its start.
func fill(ctx context.Context, f *os.File, p StateProvider) error {
	if err := p.Write(ctx, f); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return fdx.Seal(f)
}

// settle tells the providers how the upgrade ended.
func (s *states) settle(err error) {
	s.mu.Lock()
	written := s.written
	s.written = nil
	s.mu.Unlock()
	if err == nil {
		return
	}
	for _, p := range written {
		if p.Failed != nil {
			p.Failed(err)
		}
	}
}

// arrive takes over what a predecessor has written.
func (s *states) arrive(blobs []session.Blob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blobs {
		if old := s.arrived[b.Name]; old != nil {
			_ = old.Close() // sent twice: the last one counts
		}
		s.arrived[b.Name] = b.File
	}
}

func (s *states) take(name string) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.arrived[name]
	if f == nil {
		return nil, fmt.Errorf("handoff: state %q: %w", name, os.ErrNotExist)
	}
	delete(s.arrived, name)
	return f, nil
}

// close closes what nobody has asked for.
func (s *states) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.arrived {
		_ = f.Close() // memory
		delete(s.arrived, name)
	}
}
