package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"
)

// Screen is a terminal, or not one: then its width is 0, there are no colours,
// and live lines are nothing. Its methods may be called from any goroutine.
// Errors of writing are the writer's to keep.
type Screen struct {
	w     io.Writer
	out   *os.File // the terminal, if it is one
	width int

	mu     sync.Mutex
	height int
	live   string
}

// New returns a screen that writes to w; it is a terminal if out is one, of which
// w may be a wrapper. TERM=dumb says that it is none.
func New(out, w io.Writer) *Screen {
	s := &Screen{w: w}
	if f, ok := out.(*os.File); ok && os.Getenv("TERM") != "dumb" {
		s.out = f
		s.width, s.height = size(f)
	}
	return s
}

// Sized returns a screen of that many columns and rows; 0 columns is no terminal.
func Sized(w io.Writer, columns, rows int) *Screen {
	return &Screen{w: w, width: columns, height: rows}
}

// Live reports whether there is a live line.
func (s *Screen) Live() bool { return s.width > 0 }

// Rows returns how many lines a page has room for at the moment; 0 is no terminal.
func (s *Screen) Rows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out != nil && s.width > 0 {
		if _, rows := size(s.out); rows > 0 {
			s.height = rows // the window may have changed
		}
	}
	return s.rows()
}

func (s *Screen) rows() int {
	if s.width == 0 {
		return 0
	}
	return max(1, s.height-1) // the cursor is below them
}

// Wrap breaks a text at spaces into lines of the terminal's width, less a margin
// on the left. Elsewhere it stays one line, for grep.
func (s *Screen) Wrap(margin int, text string) []string {
	room := s.width - margin
	if s.width == 0 || room <= 0 {
		return []string{text}
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= room:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// A Colour is a rendition of ECMA-48 (SGR).
type Colour string

// The colours.
const (
	Red    Colour = "31"
	Green  Colour = "32"
	Yellow Colour = "33"
	Bold   Colour = "1"
)

const (
	eraseLine = "\r\x1b[K" // to the first column, EL
	home      = "\x1b[H"   // CUP
	eraseRest = "\x1b[K"   // of the line, EL
	eraseDown = "\x1b[J"   // ED
	noWrap    = "\x1b[?7l" // DECAWM: what is too long is cut by the terminal
	wrap      = "\x1b[?7h"
)

// Colour colours a text. NO_COLOR (no-color.org) turns that off.
func (s *Screen) Colour(c Colour, text string) string {
	if s.width == 0 || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// Line prints a line that stays.
func (s *Screen) Line(format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), " ")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != "" {
		text, s.live = eraseLine+text, ""
	}
	_, _ = fmt.Fprintln(s.w, text)
}

// Status replaces the live line.
func (s *Screen) Status(format string, args ...any) {
	if s.width == 0 {
		return
	}
	text := clip(fmt.Sprintf(format, args...), s.width-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if text == s.live {
		return
	}
	s.live = text
	_, _ = fmt.Fprint(s.w, eraseLine+text)
}

// Clear takes the live line away.
func (s *Screen) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != "" {
		s.live = ""
		_, _ = fmt.Fprint(s.w, eraseLine)
	}
}

// Page shows a text in the place of all there is, as much of it as [Screen.Rows]
// has found room for. It is one write, over what it replaces: that does not flicker. Elsewhere it
// is printed below the last one.
func (s *Screen) Page(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.width == 0 {
		_, _ = fmt.Fprintln(s.w, text)
		return
	}
	s.live = ""
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if rows := s.rows(); len(lines) > rows {
		lines = lines[:rows]
	}
	_, _ = fmt.Fprint(s.w, home+noWrap+eraseRest+strings.Join(lines, "\n"+eraseRest)+"\n"+wrap+eraseDown)
}

// clip cuts s to n characters: a live line that wraps can't be erased.
func clip(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(0, n)])
}
