package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// terminalWidth returns the number of columns if f is a terminal, or 0.
func terminalWidth(f *os.File) int {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	width := 0
	_ = rc.Control(func(fd uintptr) { // an error leaves 0
		if ws, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ); err == nil {
			width = int(ws.Col)
			if width == 0 {
				width = 80 // a terminal that does not know its size
			}
		}
	})
	return width
}
