package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A ledger is where a process notes its connections. Each note is one write(2),
// so that what was noted is there when the process has been killed.
type ledger struct{ f *os.File }

// openLedger opens the ledger of a process.
func openLedger(dir string, pid int) (*ledger, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(pid)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	return &ledger{f}, err
}

// got notes that the process has got a connection.
func (l *ledger) got(c net.Conn) { l.add("+", c) }

// left notes that the process is about to close a connection, or to give it away.
func (l *ledger) left(c net.Conn) { l.add("-", c) }

func (l *ledger) add(sign string, c net.Conn) {
	if _, err := l.f.WriteString(sign + connName(c.RemoteAddr().String(), c.LocalAddr().String()) + "\n"); err != nil {
		panic(err) // without it nothing can be proved
	}
}

// connName names a connection by its two ends.
func connName(client, server string) string { return client + " " + server }

// readLedger returns the connections that a process had in the end.
func readLedger(dir string, pid int) (map[string]bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(pid)))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // killed before it has served a connection
	}
	return openAtEnd(string(b)), err
}

// openAtEnd returns the connections that are open at the end of a ledger.
func openAtEnd(text string) map[string]bool {
	open := make(map[string]bool)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "+"); ok {
			open[name] = true
		} else if name, ok := strings.CutPrefix(line, "-"); ok {
			delete(open, name)
		}
	}
	return open
}
