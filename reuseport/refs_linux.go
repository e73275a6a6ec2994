package reuseport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// refTable reads how many references the kernel holds on a listener.
//
// Each handshake and each connection in the queue holds one until it is
// accepted or over (reqsk_alloc, and reqsk_put in inet_csk_accept), without a
// gap between the two states. So the number of an idle listener means that
// nothing is left, in one look, and of this listener alone, which sock_diag does
// not tell. The number can be too high for a moment, when another process looks
// at the socket, never too low.
//
// The listeners are the first lines of /proc/net/tcp, so the size of the file
// doesn't matter.
type refTable struct {
	f    *os.File
	r    *bufio.Reader
	idle int // references of a listener with nothing in it
}

// openRefs checks the above on a listener of its own before it returns.
func openRefs(family uint8) (*refTable, error) {
	name := "/proc/thread-self/net/tcp"
	if family == unix.AF_INET6 {
		name += "6"
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	t := &refTable{f: f, r: bufio.NewReaderSize(f, 512)} // a line has 150 bytes
	if err := t.calibrate(family); err != nil {
		_ = f.Close() // was only read
		return nil, fmt.Errorf("references of a listener in %s: %w", name, err)
	}
	return t, nil
}

func (t *refTable) close() { _ = t.f.Close() } // was only read

func (t *refTable) calibrate(family uint8) error {
	var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if family == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	}
	ln, err := unix.Socket(int(family), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(ln)
	// The handshake stays half-open until data comes, which never does.
	if err := unix.SetsockoptInt(ln, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1); err != nil {
		return os.NewSyscallError("setsockopt(TCP_DEFER_ACCEPT)", err)
	}
	if err := unix.Bind(ln, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(ln, 1); err != nil {
		return os.NewSyscallError("listen", err)
	}
	inode, err := inodeOfFD(ln)
	if err != nil {
		return err
	}
	idle, err := t.refs(inode)
	if err != nil {
		return err
	}
	if sa, err = unix.Getsockname(ln); err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	cl, err := unix.Socket(int(family), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(cl)
	tv := unix.NsecToTimeval((2 * time.Second).Nanoseconds())
	if err := unix.SetsockoptTimeval(cl, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return os.NewSyscallError("setsockopt(SO_SNDTIMEO)", err)
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Connect(cl, sa) // once more, it waits for the end of the first one
	}
	if err != nil && !errors.Is(err, unix.EISCONN) {
		return os.NewSyscallError("connect", err)
	}
	busy, err := t.refs(inode)
	if err != nil {
		return err
	}
	if busy != idle+1 {
		return fmt.Errorf("a handshake changes %d to %d, want %d: %w", idle, busy, idle+1, errors.ErrUnsupported)
	}
	t.idle = idle
	return nil
}

// pending returns the number of handshakes and queued connections of the
// listener with this inode.
func (t *refTable) pending(inode uint32) (int, error) {
	n, err := t.refs(inode)
	return max(0, n-t.idle), err
}

// halfOpen returns the number of handshakes of all listeners that have the same
// address as the one with this inode.
func (t *refTable) halfOpen(inode uint32) (int, error) {
	sums := make(map[string]int) // by address
	own := ""
	err := t.listeners(func(l listenerLine) bool {
		sums[string(l.local)] += max(0, l.refs-t.idle) - l.queued
		if l.inode == inode {
			own = string(l.local)
		}
		return true
	})
	if err == nil && own == "" {
		err = fmt.Errorf("listener %d in %s: %w", inode, t.f.Name(), os.ErrNotExist)
	}
	return max(0, sums[own]), err
}

func (t *refTable) refs(inode uint32) (int, error) {
	refs := -1
	err := t.listeners(func(l listenerLine) bool {
		if l.inode == inode {
			refs = l.refs
		}
		return refs < 0
	})
	if err == nil && refs < 0 {
		err = fmt.Errorf("listener %d in %s: %w", inode, t.f.Name(), os.ErrNotExist)
	}
	return refs, err
}

// listenerLine is what a line says about a listener.
type listenerLine struct {
	local  []byte // address and port, as the kernel writes them; valid for the call
	queued int
	inode  uint32
	refs   int
}

// listeners calls f for each listener until f returns false. It reads as little
// of the file as possible: the kernel fills a read line by line, and stops at
// its size.
func (t *refTable) listeners(f func(listenerLine) (more bool)) error {
	if _, err := t.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	t.r.Reset(t.f)
	for {
		line, err := t.r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		l, kind := parseListener(line)
		if kind == lineOther || kind == lineListener && !f(l) {
			return nil
		}
	}
}

type lineKind int

const (
	lineHeader lineKind = iota
	lineListener
	lineOther // after the last listener
)

// parseListener reads one line: "sl local remote st tx:rx timer retransmits uid
// timeout inode refs …", where rx of a listener is its queue (get_tcp4_sock,
// net/ipv4/tcp_ipv4.c).
func parseListener(line []byte) (l listenerLine, kind lineKind) {
	var field [11][]byte
	n := 0
	for f := range bytes.FieldsSeq(line) {
		if n == len(field) {
			break
		}
		field[n] = f
		n++
	}
	if n < len(field) || string(field[0]) == "sl" {
		return l, lineHeader
	}
	if string(field[3]) != "0A" {
		return l, lineOther
	}
	_, rx, _ := bytes.Cut(field[4], []byte(":"))
	queued, err1 := strconv.ParseUint(string(rx), 16, 32)
	inode, err2 := strconv.ParseUint(string(field[9]), 10, 32)
	refs, err3 := strconv.ParseUint(string(field[10]), 10, 32)
	if errors.Join(err1, err2, err3) != nil {
		return l, lineHeader // not a form that is known
	}
	return listenerLine{local: field[1], queued: int(queued), inode: uint32(inode), refs: int(refs)}, lineListener
}
