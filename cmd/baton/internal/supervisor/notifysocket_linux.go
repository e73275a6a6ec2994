package supervisor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/trust"
)

// notifySocket is where the app's processes report their state (sd_notify(3)). It is in a
// folder of its own, which no other user can read: another user could fill the socket's
// queue, which the kernel keeps short, so that the app's READY=1 finds no room.
type notifySocket struct {
	c      *net.UnixConn
	folder string
	path   string // NOTIFY_SOCKET

	once   sync.Once
	closed chan struct{}
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
	bound := filepath.Join(folder, "s")
	n.c, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: bound, Net: "unixgram"})
	if err == nil {
		err = fdx.Borrow(n.c, func(fd int) error {
			return os.NewSyscallError("setsockopt(SO_PASSCRED)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
		})
		err = errors.Join(err, os.Rename(bound, n.path))
		if os.Geteuid() == 0 {
			err = errors.Join(err, os.Chmod(n.path, 0o666), os.Chmod(folder, 0o711))
		}
		if err != nil {
			_ = n.c.Close() // unused so far
		}
	}
	if err != nil {
		_ = os.RemoveAll(folder)
		return nil, err
	}
	return n, nil
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
		close(n.closed)
		_ = n.c.Close()
		_ = os.RemoveAll(n.folder) // the next start removes it, if this can't
	})
}

// listen calls each with each notification of a process that admits reports as the app's,
// until close. Both functions run in another goroutine, which do hands them to, and the
// next notification is read when they have returned, so that what is kept is bounded: by
// the kernel, but for one notification. From other processes nothing is taken out of the
// queue but the process ID: the kernel closes their descriptors.
func (n *notifySocket) listen(do func(func()), admits func(pid int) bool, each func(news)) {
	text := make([]byte, maxNews)
	pid := unix.CmsgSpace(unix.SizeofUcred)
	rights := unix.CmsgLen(maxDescriptors * 4) // in the room of CmsgSpace another one fits
	oob := make([]byte, pid+rights)
	for {
		_, control, _, err := n.receive(text[:1], oob[:pid], unix.MSG_PEEK)
		if n.over(err) {
			return
		}
		sender := parseNews("", control).pid // the kernel puts it first (scm_recv_unix, net/core/scm.c)
		admitted := false
		if !n.await(do, func() { admitted = admits(sender) }) {
			return
		}
		if !admitted {
			_, _, _, err = n.receive(text[:1], oob[:pid], 0)
			if n.over(err) {
				return
			}
			continue
		}
		size, control, flags, err := n.receive(text, oob, 0)
		if n.over(err) {
			return
		}
		if flags&unix.MSG_TRUNC != 0 {
			size = 0 // half a line may say something else
		}
		one := parseNews(string(text[:size]), control)
		if !n.await(do, func() { each(one) }) {
			return
		}
	}
}

// over reports whether err, of receive, ends listen: any other is the sender's.
func (n *notifySocket) over(err error) bool { return errors.Is(err, net.ErrClosed) }

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

// receive waits for a datagram and returns its size, what came with it, and the flags
// that recvmsg(2) returns.
func (n *notifySocket) receive(text, oob []byte, flags int) (size int, control []byte, got int, err error) {
	raw, err := n.c.SyscallConn()
	if err != nil {
		return 0, nil, 0, err
	}
	var oobn int
	rerr := raw.Read(func(fd uintptr) bool {
		for {
			size, oobn, got, _, err = unix.Recvmsg(int(fd), text, oob, flags|unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
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
