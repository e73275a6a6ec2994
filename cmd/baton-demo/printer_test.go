package main

import (
	"strings"
	"testing"
)

func TestPrinter(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	show := func(p *printer) string {
		out.Reset()
		p.w = &out
		p.status("a long status line")
		p.status("a long status line") // the same: not again
		p.line("one  ")
		p.line("two")
		p.status("b")
		p.clear()
		p.clear()
		return out.String()
	}
	if got, want := show(&printer{}), "one\ntwo\n"; got != want {
		t.Errorf("in a pipe: %q, want %q", got, want)
	}
	const el = "\r\x1b[K"
	if got, want := show(&printer{width: 7}), el+"a long"+el+"one\ntwo\n"+el+"b"+el; got != want {
		t.Errorf("on a terminal: %q, want %q", got, want)
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"äöü", 2, "äö"}, {"abc", 0, ""}, {"abc", -1, ""}} {
		if got := clip(c.s, c.n); got != c.want {
			t.Errorf("clip(%q, %d) = %q, want %q", c.s, c.n, got, c.want)
		}
	}
}
