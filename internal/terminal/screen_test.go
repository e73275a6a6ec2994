package terminal_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/terminal"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) { testmain.Run(m) }

func TestScreen(t *testing.T) {
	t.Parallel()
	show := func(columns int) string {
		var out strings.Builder
		s := terminal.Sized(&out, columns, 3)
		s.Status("a long status line")
		s.Status("a long status line") // the same: not again
		s.Line("one  ")
		s.Line("two")
		s.Status("b")
		s.Clear()
		s.Clear()
		s.Status("c")
		s.Page("1\n2\n3\n")
		s.Line("three")
		return out.String()
	}
	if got, want := show(0), "one\ntwo\n1\n2\n3\n\nthree\n"; got != want {
		t.Errorf("in a pipe: %q, want %q", got, want)
	}
	const el = "\r\x1b[K"
	if got, want := show(7), el+"a long"+el+"one\ntwo\n"+el+"b"+el+el+"c\x1b[H\x1b[?7l\x1b[K1\n\x1b[K2\n\x1b[?7h\x1b[Jthree\n"; got != want {
		t.Errorf("on a terminal: %q, want %q", got, want)
	}
}

// TestQuote shows what a terminal would obey, or not show, and leaves the rest.
func TestQuote(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"api 2.1 (größer 世界)":        "api 2.1 (größer 世界)",
		"\x1b]0;title\a":             `\x1b]0;title\a`,
		"one\r\n\tforged":            `one\r\n\tforged`,
		"\x7f\u009b31m\u202egnp.exe": `\x7f\u009b31m\u202egnp.exe`,
		"\xff\x9b":                   `\xff\x9b`,
	} {
		if got := terminal.Quote(text); got != want {
			t.Errorf("Quote(%q) = %q, want %q", text, got, want)
		}
	}
	v := struct {
		S []struct{ T string }
		P *string
	}{[]struct{ T string }{{"\a"}}, new(string)}
	*v.P = "\x1b"
	if terminal.QuoteAll(&v); v.S[0].T != `\a` || *v.P != `\x1b` {
		t.Errorf("QuoteAll: %q, %q", v.S[0].T, *v.P)
	}
}

func TestColour(t *testing.T) {
	for _, c := range []struct {
		columns int
		noColor string
		want    string
	}{{80, "", "\x1b[32mx\x1b[0m"}, {80, "1", "x"}, {0, "", "x"}} {
		t.Setenv("NO_COLOR", c.noColor)
		if got := terminal.Sized(nil, c.columns, 24).Colour(terminal.Green, "x"); got != c.want {
			t.Errorf("%d columns, NO_COLOR=%q: %q, want %q", c.columns, c.noColor, got, c.want)
		}
	}
}

// What is no file, or no terminal, has no width.
func TestNew(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := terminal.New(&out, &out)
	if s.Live() {
		t.Error("a buffer is taken for a terminal")
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"äöü", 2, "äö"}, {"abc", 0, ""}, {"abc", -1, ""}} {
		if got := terminal.Clip(c.s, c.n); got != c.want {
			t.Errorf("clip(%q, %d) = %q, want %q", c.s, c.n, got, c.want)
		}
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		columns, margin int
		text            string
		want            []string
	}{
		{0, 2, "one two three", []string{"one two three"}},
		{9, 2, "one two three", []string{"one two", "three"}},
		{8, 2, "one two three", []string{"one", "two", "three"}},
		{8, 2, "a-word-that-is-long and b", []string{"a-word-that-is-long", "and b"}},
		{8, 2, "äöüäöü b", []string{"äöüäöü", "b"}},
		{2, 2, "one two", []string{"one two"}},
		{80, 2, "", []string{""}},
	} {
		if got := terminal.Sized(nil, c.columns, 24).Wrap(c.margin, c.text); !slices.Equal(got, c.want) {
			t.Errorf("%d columns, Wrap(%d, %q) = %q, want %q", c.columns, c.margin, c.text, got, c.want)
		}
	}
}
