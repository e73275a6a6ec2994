package terminal

import (
	"os"

	"golang.org/x/sys/unix"
)

// size returns the number of columns and rows if f is a terminal, or 0.
func size(f *os.File) (columns, rows int) {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, 0
	}
	_ = rc.Control(func(fd uintptr) { // an error leaves 0
		if ws, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ); err == nil {
			columns, rows = int(ws.Col), int(ws.Row)
			if columns == 0 || rows == 0 {
				columns, rows = 80, 24 // a terminal that does not know its size
			}
		}
	})
	return columns, rows
}
