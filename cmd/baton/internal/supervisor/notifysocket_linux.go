package supervisor

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/trust"
)

// notifySocket is where the app's processes report their state (sd_notify(3)). It is in a
// folder of its own, which no other user can read: another user could fill the socket's
// queue, which the kernel keeps short, so that the app's READY=1 finds no room.
type notifySocket struct {
	folder string
	path   string // NOTIFY_SOCKET

	once   sync.Once
	closed chan struct{}

	mu sync.Mutex
	c  *net.UnixConn // replaced by remake: listen empties the old one, and closes it
	at os.FileInfo   // what path led to
}

// What is taken of a notification. systemd has the same bound of the text; one descriptor
// asks for a barrier (sd_notify_barrier(3)), and the kernel closes more.
const (
	maxNews        = 4096
	maxDescriptors = 1
)

// folderPattern is that of the folders of notify sockets.
const folderPattern = "baton-run-*"

// newNotifySocket binds a socket in the first folder that this user can write to: the one
// for run-time files, that for temporary ones, and the one that a container has whose
// file system is read-only.
func newNotifySocket() (*notifySocket, error) {
	bases := []string{os.TempDir(), "/dev/shm"}
	if os.Geteuid() == 0 {
		bases = append([]string{"/run"}, bases...)
	} else if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		bases = append([]string{dir}, bases...)
	}
	var errs []error
	for _, base := range bases {
		n, err := bindNotifySocket(base)
		if err == nil {
			return n, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("notify socket: no folder for it: set TMPDIR to one that uid %d can write to: %w", os.Geteuid(), errors.Join(errs...))
}

// bindNotifySocket binds a socket in a new folder below base.
//
// The app may change its user, and be the only process of that user that knows the path:
// where this process is root, others can pass through the folder, but not list it, and
// the name of the socket is secret. The kernel shows the name by which it was bound
// (/proc/net/unix), so the socket gets another one after that.
func bindNotifySocket(base string) (*notifySocket, error) {
	if err := trust.CheckFolder(base, 0); err != nil {
		return nil, err
	}
	sweep(base)
	folder, err := os.MkdirTemp(base, folderPattern)
	if err != nil {
		return nil, err
	}
	n := &notifySocket{folder: folder, path: filepath.Join(folder, rand.Text()), closed: make(chan struct{})}
	if err := n.bind(); err != nil {
		_ = os.RemoveAll(folder)
		return nil, err
	}
	return n, nil
}

// bind binds a socket in the folder, which is empty.
func (n *notifySocket) bind() error {
	bound := filepath.Join(n.folder, "s")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: bound, Net: "unixgram"})
	if err != nil {
		return err
	}
	err = fdx.Borrow(c, func(fd int) error {
		return os.NewSyscallError("setsockopt(SO_PASSCRED)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
	})
	if os.Geteuid() == 0 {
		err = errors.Join(err, os.Chmod(bound, 0o666), os.Chmod(n.folder, 0o711))
	}
	err = errors.Join(err, os.Rename(bound, n.path))
	if err == nil {
		n.at, err = os.Lstat(n.path)
	}
	if err != nil {
		_ = c.Close() // unused so far
		return err
	}
	n.c = c
	return nil
}

// renewal is how old the times of the socket and its folder become: what removes old files
// (systemd-tmpfiles(8)) waits for days.
const renewal = time.Hour

// remake makes the socket again at its path, and its folder, where another program has
// removed them: the app's processes know the path from their start. It reports whether it
// has.
func (n *notifySocket) remake() (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.closed:
		return false, nil
	default:
	}
	now, err := os.Lstat(n.path)
	switch {
	case err == nil && os.SameFile(now, n.at):
		if time.Since(now.ModTime()) > renewal {
			t := time.Now()
			_, _ = os.Chtimes(n.path, t, t), os.Chtimes(n.folder, t, t) // or they are made again
		}
		return false, nil
	case err == nil:
		return false, fmt.Errorf("notify socket: another file is at %s: remove it", n.path)
	case !errors.Is(err, os.ErrNotExist):
		return false, fmt.Errorf("notify socket: %w", err)
	}
	if err := os.Mkdir(n.folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return false, fmt.Errorf("notify socket: %w", err)
	}
	if fi, err := os.Lstat(n.folder); err != nil || !fi.IsDir() || !ours(fi) {
		return false, fmt.Errorf("notify socket: the folder %s is another user's, or none (%w)", n.folder, cmp.Or(err, os.ErrPermission))
	}
	was := n.c
	if err := n.bind(); err != nil {
		return false, fmt.Errorf("notify socket: %w", err)
	}
	_ = was.SetReadDeadline(time.Unix(1, 0)) // listen looks which one is the socket now
	return true, nil
}

// keepNotifySocket is remake, and logs what it did: an error once.
func (s *Supervisor) keepNotifySocket() {
	made, err := s.notify.remake()
	text := ""
	switch {
	case err != nil:
		if text = err.Error(); text != s.unkept {
			s.log.Error("the app can't report its state", "error", err)
		}
	case made:
		s.log.Warn("the notify socket had been removed: it is there again", "path", s.notify.path)
	}
	s.unkept = text
}

// sweep removes the folders in base of supervisors that were killed.
func sweep(base string) {
	folders, err := filepath.Glob(filepath.Join(base, folderPattern))
	if err != nil {
		return // the pattern is a constant
	}
	for _, folder := range folders {
		fi, err := os.Lstat(folder)
		if err != nil || !fi.IsDir() || !ours(fi) {
			continue
		}
		files, _ := os.ReadDir(folder) // one that can't be read stays
		if len(files) != 1 || files[0].Type() != os.ModeSocket {
			continue // not of a supervisor, and connect(2) to a plain file is refused, too
		}
		if path := filepath.Join(folder, files[0].Name()); refuses(path) {
			_, _ = os.Remove(path), os.Remove(folder) // another start may do it
		}
	}
}

func ours(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// refuses reports whether path is a socket that no process has open.
func refuses(path string) bool {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_ = c.Close() // nothing was sent
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// close ends listen, and removes the socket. It may be called several times.
func (n *notifySocket) close() {
	n.once.Do(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		close(n.closed)
		_ = n.c.Close()
		_ = os.RemoveAll(n.folder) // the next start removes it, if this can't
	})
}

// lookEvery is how often listen has keep called.
const lookEvery = time.Second

// listen calls each with each notification of a process that admits reports as the app's,
// until close, and keep at intervals. The functions run in another goroutine, which do
// hands them to, and the next notification is read when they have returned, so that what is
// kept is bounded: by the kernel, but for one notification. From other processes nothing is
// taken out of the queue but the process ID: the kernel closes their descriptors.
func (n *notifySocket) listen(do func(func()), admits func(pid int) bool, each func(news), keep func()) {
	next := time.Now().Add(lookEvery)
	for c := n.current(); c != nil; {
		_ = c.SetReadDeadline(next) // before the look: remake sets one that has passed
		if now := n.current(); now != c {
			for n.hear(c, false, do, admits, each) == nil { // what had come before the path was removed
			}
			_ = c.Close()
			c = now
			continue
		}
		if errors.Is(n.hear(c, true, do, admits, each), os.ErrDeadlineExceeded) {
			n.await(do, keep)
			next = time.Now().Add(lookEvery)
		}
	}
}

// current returns the socket at the path, or nil after close.
func (n *notifySocket) current() *net.UnixConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.closed:
		return nil
	default:
		return n.c
	}
}

// hear does what listen does with one notification. If waits is not set, it returns an
// error where none is there.
func (n *notifySocket) hear(c *net.UnixConn, waits bool, do func(func()), admits func(pid int) bool, each func(news)) error {
	text := make([]byte, maxNews)
	pid := unix.CmsgSpace(unix.SizeofUcred)
	rights := unix.CmsgLen(maxDescriptors * 4) // in the room of CmsgSpace another one fits
	oob := make([]byte, pid+rights)
	_, control, _, err := receive(c, waits, text[:1], oob[:pid], unix.MSG_PEEK)
	if err != nil {
		return err
	}
	sender := parseNews("", control).pid // the kernel puts it first (scm_recv_unix, net/core/scm.c)
	admitted := false
	if !n.await(do, func() { admitted = admits(sender) }) {
		return net.ErrClosed
	}
	if !admitted {
		_, _, _, err = receive(c, waits, text[:1], oob[:pid], 0)
		return err
	}
	size, control, flags, err := receive(c, waits, text, oob, 0)
	if err != nil {
		return err
	}
	if flags&unix.MSG_TRUNC != 0 {
		size = 0 // half a line may say something else
	}
	one := parseNews(string(text[:size]), control)
	if !n.await(do, func() { each(one) }) {
		return net.ErrClosed
	}
	return nil
}

// await has do run f, and waits for that. It reports false if close comes first: f may
// run later.
func (n *notifySocket) await(do func(func()), f func()) bool {
	done := make(chan struct{})
	do(func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
		return true
	case <-n.closed:
		return false
	}
}

// receive returns the size of a datagram, what came with it, and the flags that recvmsg(2)
// returns. It waits for one if waits is set.
func receive(c *net.UnixConn, waits bool, text, oob []byte, flags int) (size int, control []byte, got int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, nil, 0, err
	}
	var oobn int
	call := func(fd uintptr) bool {
		for {
			size, oobn, got, _, err = unix.Recvmsg(int(fd), text, oob, flags|unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	}
	rerr := error(nil)
	if waits {
		rerr = raw.Read(call)
	} else {
		rerr = raw.Control(func(fd uintptr) { call(fd) })
	}
	if rerr != nil {
		return 0, nil, 0, rerr
	}
	if err != nil {
		return 0, nil, 0, os.NewSyscallError("recvmsg", err)
	}
	return size, oob[:oobn], got, nil
}

// address is NOTIFY_SOCKET.
func (n *notifySocket) address() string { return n.path }

// admits reports whether a process belongs to the app: see receive.
func (s *Supervisor) admits(pid int) bool {
	if s.sender(pid) != nil {
		return true
	}
	if s.lostMain == nil || pid <= 0 {
		return false
	}
	pgid, err := unix.Getpgid(pid)
	return err == nil && pgid == s.lostMain.pgid
}
