package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"
)

// printer prints lines that stay and, on a terminal, one live line below them.
type printer struct {
	mu    sync.Mutex
	w     io.Writer
	width int // of the terminal; 0 if it is none
	live  string
}

func newPrinter(w io.Writer) *printer {
	p := &printer{w: w}
	if f, ok := w.(*os.File); ok && os.Getenv("TERM") != "dumb" {
		p.width = terminalWidth(f)
	}
	return p
}

// eraseLine returns to the first column and erases the line (ECMA-48, CR and EL).
const eraseLine = "\r\x1b[K"

// line prints a line that stays.
func (p *printer) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live != "" {
		text, p.live = eraseLine+text, ""
	}
	_, _ = fmt.Fprintln(p.w, strings.TrimRight(text, " ")) // nobody to tell
}

// status replaces the live line. It is nothing where the output is no
// terminal.
func (p *printer) status(format string, args ...any) {
	if p.width == 0 {
		return
	}
	text := clip(fmt.Sprintf(format, args...), p.width-1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if text == p.live {
		return
	}
	p.live = text
	_, _ = fmt.Fprint(p.w, eraseLine+text)
}

// clear takes the live line away.
func (p *printer) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live != "" {
		_, _ = fmt.Fprint(p.w, eraseLine)
		p.live = ""
	}
}

// clip cuts s to n characters: a live line that wraps can't be erased.
func clip(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(0, n)])
}
