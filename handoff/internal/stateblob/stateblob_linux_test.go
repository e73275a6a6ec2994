package stateblob_test

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/stateblob"
)

// TestTransfer passes what providers write from one side to the other.
func TestTransfer(t *testing.T) {
	t.Parallel()
	write := func(text string) stateblob.Provider {
		return stateblob.Provider{Write: func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		}}
	}
	var p stateblob.Providers
	p.Provide("a", write("old"))
	p.Provide("gone", write("gone"))
	p.Provide("b", write("two"))
	p.Provide("a", write("one"))
	p.Provide("gone", stateblob.Provider{})
	p.Provide("never", stateblob.Provider{})
	tr := p.Begin()
	p.Provide("late", write("late"))
	blobs, err := tr.Write(context.Background())
	if err != nil || tr.Len() != 2 || len(blobs) != 2 {
		t.Fatalf("%d blobs of %d, %v, want 2", len(blobs), tr.Len(), err)
	}
	var r stateblob.Received
	defer r.Close()
	r.Add(blobs)
	for i, want := range []string{"one", "two"} {
		name := blobs[i].Name
		f, err := r.Take(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if err != nil || string(got) != want || blobs[i].Size != uint64(len(want)) {
			t.Errorf("blob %q of %d bytes: %q, %v, want %q", name, blobs[i].Size, got, err, want)
		}
		if _, err := f.WriteString("x"); err == nil {
			t.Errorf("blob %q is not sealed", name)
		}
		_ = f.Close()
		if _, err := r.Take(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("blob %q, taken twice: %v, want ErrNotExist", name, err)
		}
	}
}

// TestFailed tells the providers whose Write was called, and no others.
func TestFailed(t *testing.T) {
	t.Parallel()
	broken, reason := errors.New("broken"), errors.New("reason")
	var failed []string
	provider := func(name string, err error) stateblob.Provider {
		return stateblob.Provider{
			Write: func(context.Context, io.Writer) error { return err },
			Failed: func(err error) {
				if !errors.Is(err, reason) {
					t.Errorf("%s: Failed(%v), want %v", name, err, reason)
				}
				failed = append(failed, name)
			},
		}
	}
	var p stateblob.Providers
	p.Provide("a", provider("a", nil))
	p.Provide("b", provider("b", broken))
	p.Provide("c", provider("c", nil))
	tr := p.Begin()
	blobs, err := tr.Write(context.Background())
	for _, b := range blobs {
		_ = b.File.Close()
	}
	if !errors.Is(err, broken) || len(blobs) != 2 {
		t.Errorf("Write() = %d blobs, %v, want 2, %v", len(blobs), err, broken)
	}
	tr.Failed(reason)
	if len(failed) != 2 || failed[0] != "a" || failed[1] != "b" {
		t.Errorf("Failed of %q, want a and b", failed)
	}
}

// TestReceivedClosed closes what the program has not taken, and what came twice.
func TestReceivedClosed(t *testing.T) {
	t.Parallel()
	var p stateblob.Providers
	p.Provide("a", stateblob.Provider{Write: func(context.Context, io.Writer) error { return nil }})
	var r stateblob.Received
	var files []*os.File
	for range 2 {
		blobs, err := p.Begin().Write(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, blobs[0].File)
		r.Add(blobs)
	}
	r.Close()
	for _, f := range files {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Close() = %v, want ErrClosed", err)
		}
	}
	if _, err := r.Take("a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Take() = %v, want ErrNotExist", err)
	}
}
