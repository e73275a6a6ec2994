package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// screen is a terminal, or not one: then width is 0, there are no colours, and
// live lines are nothing.
type screen struct {
	w     io.Writer
	width int
	live  bool
}

// newScreen looks whether stdout is a terminal; out is where to write.
func newScreen(stdout, out io.Writer) *screen {
	s := &screen{w: out}
	if f, ok := stdout.(*os.File); ok && os.Getenv("TERM") != "dumb" {
		s.width = terminalWidth(f)
	}
	return s
}

// Colours and movements (ECMA-48).
const (
	red       = "31"
	green     = "32"
	yellow    = "33"
	bold      = "1"
	eraseLine = "\r\x1b[K"
	eraseAll  = "\x1b[H\x1b[2J"
)

// colour colours a text. NO_COLOR (no-color.org) turns that off.
func (s *screen) colour(colour, text string) string {
	if s.width == 0 || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// line prints a line that stays.
func (s *screen) line(format string, args ...any) {
	s.clear()
	_, _ = fmt.Fprintln(s.w, strings.TrimRight(fmt.Sprintf(format, args...), " ")) // output keeps the error
}

// status replaces the live line.
func (s *screen) status(format string, args ...any) {
	if s.width == 0 {
		return
	}
	text := fmt.Sprintf(format, args...)
	if n := s.width - 1; utf8.RuneCountInString(text) > n { // one that wraps can't be erased
		text = string([]rune(text)[:max(0, n)])
	}
	s.live = true
	_, _ = fmt.Fprint(s.w, eraseLine+text) // likewise
}

// clear takes the live line away.
func (s *screen) clear() {
	if s.live {
		s.live = false
		_, _ = fmt.Fprint(s.w, eraseLine) // likewise
	}
}

// restart begins a new page.
func (s *screen) restart() {
	if s.width > 0 {
		_, _ = fmt.Fprint(s.w, eraseAll) // likewise
	}
}

// bar shows how much of a whole is done.
func bar(done, whole uint64) string {
	const cells = 20
	n := cells
	if whole > 0 {
		n = int(min(done, whole) * cells / whole)
	}
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", cells-n) + "]"
}
