package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
)

func TestImage(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	i := newImage(cpio.NewWriter(&b))
	if err := errors.Join(
		i.add("/a/b/file", []byte("text"), 0o755), i.add("a/b/other", nil, 0o600), i.mkdir("/a/b"), i.w.Close(),
	); err != nil {
		t.Fatal(err)
	}
	var got []string
	r := cpio.NewReader(&b)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Mode.String()+" "+h.Name+" "+string(text))
	}
	// Folders come before what is in them, once.
	const want = "040755 a ,040755 a/b ,0100755 a/b/file text,0100600 a/b/other "
	if all := strings.Join(got, ","); all != want {
		t.Errorf("the archive has %q, want %q", all, want)
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text   string
		events int
		ended  bool
		bad    bool
	}{
		{`{"kind":"boot","text":"6.1"}` + "\n" + `{"kind":"end"}` + "\n", 1, true, false},
		{`{"kind":"boot","text":"6.1"}` + "\n", 1, false, false},
		{`{"kind":"end","text":"no plan"}` + "\n", 0, true, true},
		{"Kernel panic\n", 0, false, true},
	} {
		n := 0
		ended, err := follow(strings.NewReader(c.text), func(event) error { n++; return nil })
		if n != c.events || ended != c.ended || (err != nil) != c.bad {
			t.Errorf("follow(%q): %d events, ended: %t, %v", c.text, n, ended, err)
		}
	}
}
