package supervisor_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/cmd/baton/internal/supervisor"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// descriptors returns what this process has open.
func descriptors(tb testing.TB) []string {
	tb.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	var all []string
	for _, f := range files {
		if target, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil {
			all = append(all, target)
		}
	}
	return all
}

// TestListenNews sends many descriptors and much text to a notify socket. Of a process
// that is no part of the app nothing is kept; of one that is, one descriptor and one
// datagram's text at most. Not parallel: it counts descriptors.
func TestListenNews(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pipe, err := os.Readlink("/proc/self/fd/" + itoa(t, w))
	if err != nil {
		t.Fatal(err)
	}
	opened := func() (n int) {
		for _, target := range descriptors(t) {
			if target == pipe {
				n++
			}
		}
		return n
	}
	before := opened()
	type received struct {
		supervisor.News
		descriptors int
	}
	var (
		mu            sync.Mutex // the race detector does not see that a barrier orders
		got           []received
		refused, most int
		admit         bool
	)
	handled := make(chan struct{})
	path, end, err := supervisor.ListenNews(t.TempDir(), func(pid int) bool {
		mu.Lock()
		defer mu.Unlock()
		if most = max(most, opened()-before); pid != os.Getpid() {
			t.Errorf("the sender is %d, want %d", pid, os.Getpid())
		}
		if !admit {
			refused++
		}
		return admit
	}, func(n supervisor.News, descriptors int) {
		mu.Lock()
		most = max(most, opened()-before)
		got = append(got, received{n, descriptors})
		mu.Unlock()
		handled <- struct{}{}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send := func(text string, descriptors int) {
		t.Helper()
		var rights []byte
		err := fdx.Borrow(w, func(fd int) error {
			if descriptors > 0 {
				rights = unix.UnixRights(slices.Repeat([]int{fd}, descriptors)...)
			}
			return fdx.Borrow(c, func(to int) error { return unix.Sendmsg(to, []byte(text), rights, nil, 0) })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 8 {
		send("READY=1\nSTATUS="+strings.Repeat("x", 100_000), 200)
		barrier(t, c) // it has been read
	}
	mu.Lock()
	admit = true
	mu.Unlock()
	for _, one := range []struct {
		text string
		fds  int
		want received
	}{
		{"READY=1\nSTATUS=a", 0, received{supervisor.News{Ready: true, Status: "a"}, 0}},
		{"STOPPING=1", 1, received{supervisor.News{Stopping: true}, 1}},
		{"STATUS=b", 200, received{supervisor.News{Status: "b"}, 1}},
		{"STATUS=c\nMAINPID=1" + strings.Repeat("2", 100_000), 0, received{}}, // cut off, it means another process
	} {
		send(one.text, one.fds)
		<-handled
		mu.Lock()
		last := got[len(got)-1]
		mu.Unlock()
		if last != one.want {
			t.Errorf("of %.20q with %d descriptors: %+v, want %+v", one.text, one.fds, last, one.want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if refused != 16 || most > 1 {
		t.Errorf("%d notifications were refused and at most %d descriptors open, want 16 and 1", refused, most)
	}
	// Each copy is closed.
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read of the pipe: %d, %v, want its end", n, err)
	}
}

// barrier waits until what c was sent before has been read.
func barrier(tb testing.TB, c *net.UnixConn) {
	tb.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	err = fdx.Borrow(w, func(fd int) error {
		return fdx.Borrow(c, func(to int) error { return unix.Sendmsg(to, []byte("BARRIER=1"), unix.UnixRights(fd), nil, 0) })
	})
	_ = w.Close() // the receiver has the only other one
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = r.Read(make([]byte, 1)) // the end
}

// TestNotifyFolder binds notify sockets: the kernel shows no name by which another user
// could find one, and the folder of a supervisor that was killed is removed. Folders of
// such a name that hold anything else stay.
func TestNotifyFolder(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	left := filepath.Join(base, "baton-run-1")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(base, "baton-run-results", "file")
	if err := os.Mkdir(filepath.Dir(users), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(users, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(left, "x"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	var ends []func()
	listen := func() string {
		path, end, err := supervisor.ListenNews(base, func(int) bool { return false }, nil)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
		return path
	}
	listen()
	if _, err := os.Stat(left); err != nil {
		t.Errorf("the folder of a supervisor that runs: %v", err)
	}
	_ = dead.Close() // which leaves the path of a datagram socket
	path := listen()
	names, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(names), path) {
		t.Errorf("/proc/net/unix has %s", path)
	}
	want := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		want = 0o711
	}
	if fi, err := os.Stat(filepath.Dir(path)); err != nil || fi.Mode().Perm() != want {
		t.Errorf("the folder has mode %v, %v, want %v", fi.Mode(), err, want)
	}
	for _, end := range ends {
		end()
	}
	if err := os.Remove(users); err != nil {
		t.Errorf("a file of the user's: %v", err)
	}
	if files, err := os.ReadDir(base); err != nil || len(files) != 1 {
		t.Errorf("%d files are left, %v, want the user's folder", len(files), err)
	}
}

func itoa(tb testing.TB, f *os.File) string {
	tb.Helper()
	fd, err := fdx.Number(f)
	if err != nil {
		tb.Fatal(err)
	}
	return strconv.Itoa(fd)
}

// TestNotifySocketSwept removes a notify socket, and its folder: it is made again at the
// same path, and what was sent before is received.
func TestNotifySocketSwept(t *testing.T) {
	t.Parallel()
	heard := make(chan string, 10)
	path, end, err := supervisor.ListenNews(t.TempDir(), func(int) bool { return true }, func(n supervisor.News, _ int) { heard <- n.Status })
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	limit := time.After(time.Minute)
	dial := func() *net.UnixConn {
		for {
			c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
			if err == nil {
				return c
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-limit:
				t.Fatal(err)
			}
		}
	}
	c := dial()
	for i, sweep := range []func() error{
		func() error { return os.Remove(path) },
		func() error { return os.RemoveAll(filepath.Dir(path)) },
	} {
		if err := sweep(); err != nil {
			t.Fatal(err)
		}
		again := dial()
		for _, to := range []*net.UnixConn{c, again} {
			if _, err := to.Write([]byte("STATUS=" + strconv.Itoa(i))); err != nil {
				t.Log(err) // of the old one: it is closed when it is empty
				continue
			}
			if got := <-heard; got != strconv.Itoa(i) {
				t.Errorf("received %q, want %d", got, i)
			}
		}
		_ = c.Close()
		c = again
	}
	_ = c.Close()
}
