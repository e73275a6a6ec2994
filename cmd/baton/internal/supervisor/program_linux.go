package supervisor

import (
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A program is the file that a generation is executed from. It is kept for as long
// as it may have to be started again: its path can have the next version by then,
// and no other file the last one.
type program struct {
	fd int // O_PATH
	id fileID
}

// fileID tells a file from those that were at its path before and after. It can't
// be written to while it is executed.
type fileID struct {
	dev, ino uint64
	mtime    unix.Timespec
}

// openProgram opens a program. It returns nil where that can't be kept: a script's
// interpreter would be told another path than that of the script, and what the
// script needs may have been replaced as well.
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
		_ = fdx.Close(fd) // only looked at
		return nil
	}
	return &program{fd, fileID{st.Dev, st.Ino, st.Mtim}}
}

// isScript reports whether a file is one. One that can't be read is none, for its
// interpreter could not either.
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

// close forgets a program. nil has nothing to forget.
func (p *program) close() {
	if p != nil {
		_ = fdx.Close(p.fd) // only looked at
	}
}

// dup returns another one of the same.
func (p *program) dup() (*program, error) {
	fd, err := fdx.DupFD(p.fd)
	if err != nil {
		return nil, err
	}
	return &program{fd, p.id}, nil
}

// find returns what to execute: the app's path, and the program there, which is the
// caller's; nil if that can't be kept. wanted says that an operator has asked for what is
// at the path. Otherwise the app has died, and what was ready last is better than
// what never has been, or than nothing: then it is that program, and kept is true.
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

// prove notes that a program has been ready, and takes it over.
func (s *Supervisor) prove(p *program) {
	s.proven.close()
	s.proven = p
}
