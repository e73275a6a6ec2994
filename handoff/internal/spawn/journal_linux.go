package spawn

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// journalVia returns the value by which a program takes fd at its descriptor 2 for the
// journal, if that of this process leads there, or "".
func journalVia(fd int) string {
	if v := os.Getenv(envJournal); v == "" || v != stream(2) {
		return ""
	}
	return stream(fd)
}

// stream returns the device and inode of a descriptor as envJournal has them.
func stream(fd int) string {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
