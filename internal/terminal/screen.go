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
	width int

	mu   sync.Mutex
	live string
}

// New returns a screen that writes to w; it is a terminal if out is one, of which
// w may be a wrapper. TERM=dumb says that it is none.
func New(out, w io.Writer) *Screen {
	s := &Screen{w: w}
	if f, ok := out.(*os.File); ok && os.Getenv("TERM") != "dumb" {
		s.width = width(f)
	}
	return s
}

// Sized returns a screen of that many columns; 0 is no terminal.
func Sized(w io.Writer, columns int) *Screen { return &Screen{w: w, width: columns} }

// Live reports whether there is a live line.
func (s *Screen) Live() bool { return s.width > 0 }

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
	eraseLine = "\r\x1b[K"      // to the first column, EL
	eraseAll  = "\x1b[H\x1b[2J" // CUP, ED
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

// Restart begins a new page.
func (s *Screen) Restart() {
	if s.width == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = ""
	_, _ = fmt.Fprint(s.w, eraseAll)
}

// clip cuts s to n characters: a live line that wraps can't be erased.
func clip(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(0, n)])
}
