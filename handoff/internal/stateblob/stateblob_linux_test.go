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
	write := func(text string) stateblob.WriteFunc {
		return func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		}
	}
	var p stateblob.Providers
	p.Provide("a", write("old"))
	p.Provide("gone", write("gone"))
	p.Provide("b", write("two"))
	p.Provide("a", write("one"))
	p.Provide("gone", nil)
	p.Provide("never", nil)
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

// TestWriteFails wants the blobs of before the error, for the caller to close.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	var p stateblob.Providers
	for name, err := range map[string]error{"a": nil, "b": broken} {
		p.Provide(name, func(context.Context, io.Writer) error { return err })
	}
	blobs, err := p.Begin().Write(context.Background())
	for _, b := range blobs {
		_ = b.File.Close()
	}
	if !errors.Is(err, broken) || len(blobs) == 0 {
		t.Errorf("Write() = %d blobs, %v, want %v", len(blobs), err, broken)
	}
}

// TestReceivedClosed closes what the program has not taken, and what came twice.
func TestReceivedClosed(t *testing.T) {
	t.Parallel()
	var p stateblob.Providers
	p.Provide("a", func(context.Context, io.Writer) error { return nil })
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
