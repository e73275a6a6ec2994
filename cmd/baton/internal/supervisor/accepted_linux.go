package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The predecessor accepts from the same sockets as the generation under probe, and the
// kernel completes a handshake before any process accepts. So a connection proves
// nothing until it is known which process has its other end.

// errAnotherOne says that a process of another generation accepted the connection.
var errAnotherOne = errors.New("another process accepts at this address")

// acceptTick is the interval between two looks for the process that accepted.
const acceptTick = 10 * time.Millisecond

// dialAccepted connects to address and returns when a process of process group pgid has
// accepted the connection. A peer outside this network namespace can't be checked; its
// answer counts.
func dialAccepted(ctx context.Context, network, address string, pgid int) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(acceptTick)
	defer tick.Stop()
	for {
		inode, found, err := peerInode(c)
		switch {
		case err != nil:
		case !found:
			return c, nil // the peer is on another machine or in another network namespace
		case inode != 0:
			if groupHas(pgid, inode) {
				return c, nil
			}
			err = errAnotherOne
		}
		if err == nil {
			select {
			case <-tick.C:
				continue // the connection is still in the accept queue
			case <-ctx.Done():
				err = fmt.Errorf("no process accepts at %s: %w", address, ctx.Err())
			}
		}
		_ = c.Close()
		return nil, err
	}
}

// peerInode returns the inode of the socket at c's other end, and whether that socket
// is in this network namespace (proc(5), /proc/net/tcp). The inode is 0 until a process
// accepts.
func peerInode(c net.Conn) (inode uint64, found bool, err error) {
	local, ok := c.LocalAddr().(*net.TCPAddr)
	remote, ok2 := c.RemoteAddr().(*net.TCPAddr)
	if !ok || !ok2 {
		return 0, false, nil
	}
	// The address may be written in either family. The two ports suffice to identify an
	// open connection, but for rare cases.
	suffix := fmt.Sprintf(":%04X", remote.Port)
	peer := fmt.Sprintf(":%04X", local.Port)
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return 0, false, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			words := strings.Fields(lines.Text())
			if len(words) < 10 || !strings.HasSuffix(words[1], suffix) || !strings.HasSuffix(words[2], peer) {
				continue
			}
			inode, err = strconv.ParseUint(words[9], 10, 64)
			_ = f.Close() // only read
			return inode, true, err
		}
		err = lines.Err()
		_ = f.Close() // only read
		if err != nil {
			return 0, false, err
		}
	}
	return 0, false, nil
}

// groupHas reports whether a process of a group has the socket.
func groupHas(pgid int, inode uint64) bool {
	link := fmt.Sprintf("socket:[%d]", inode)
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		if got, err := unix.Getpgid(pid); err != nil || got != pgid {
			continue
		}
		dir := filepath.Join("/proc", p.Name(), "fd")
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended
		}
		for _, fd := range fds {
			if target, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && target == link {
				return true
			}
		}
	}
	return false
}
