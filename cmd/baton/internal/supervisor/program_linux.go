package supervisor

import (
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A program is the file that a generation was executed from. It is kept open for as
// long as it may have to be started again: an upgrade may have replaced the file at its
// path.
type program struct {
	fd int // O_PATH
	id fileID
}

// fileID identifies a file among those that were at its path before and after. A file
// can't be written to while it is executed.
type fileID struct {
	dev, ino uint64
	mtime    unix.Timespec
}

// openProgram opens a program. It returns nil for a script: its interpreter would get
// another path than the script's, and the files that the script needs may have been
// replaced as well.
func openProgram(path string) *program {
	if isScript(path) {
		return nil
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = fdx.Close(fd) // opened with O_PATH: no data to lose
		return nil
	}
	return &program{fd, fileID{st.Dev, st.Ino, st.Mtim}}
}

// isScript reports whether a file is a script. A file that can't be read counts as
// none, since an interpreter could not read it either.
func isScript(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // only read
	var magic [2]byte
	_, err = io.ReadFull(f, magic[:])
	return err == nil && string(magic[:]) == "#!"
}

// close closes a program. It does nothing on nil.
func (p *program) close() {
	if p != nil {
		_ = fdx.Close(p.fd) // opened with O_PATH: no data to lose
	}
}

// dup returns another descriptor of the same file.
func (p *program) dup() (*program, error) {
	fd, err := fdx.DupFD(p.fd)
	if err != nil {
		return nil, err
	}
	return &program{fd, p.id}, nil
}

// find returns the app's path and the program there, or nil if that can't be kept open.
// The caller owns the program. wanted says that the user asked for the program at the
// path. Otherwise the app has died: if the program at the path is missing or was tried
// and never ready, find returns the one that was ready last, and kept is true.
func (s *Supervisor) find(wanted bool) (path string, p *program, kept bool, err error) {
	path, err = exec.LookPath(s.cfg.Args[0])
	if err == nil {
		p = openProgram(path)
	}
	if wanted || s.proven == nil || err == nil && (p == nil || p.id != s.tried || p.id == s.proven.id) {
		if p != nil {
			s.tried = p.id
		}
		return path, p, false, err
	}
	p.close()
	p, err = s.proven.dup()
	return path, p, true, err
}

// prove takes over a program that has been ready, for later restarts.
func (s *Supervisor) prove(p *program) {
	s.proven.close()
	s.proven = p
}
