package terminal

import (
	"os"

	"golang.org/x/sys/unix"
)

// width returns the number of columns if f is a terminal, or 0.
func width(f *os.File) int {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	columns := 0
	_ = rc.Control(func(fd uintptr) { // an error leaves 0
		if ws, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ); err == nil {
			columns = int(ws.Col)
			if columns == 0 {
				columns = 80 // a terminal that does not know its size
			}
		}
	})
	return columns
}
