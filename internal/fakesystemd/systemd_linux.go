package fakesystemd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// A Systemd is the service manager of one service. Its methods may be called from
// several goroutines.
type Systemd struct {
	// Path is that of the socket, for NOTIFY_SOCKET.
	Path string

	tb testing.TB
	c  *net.UnixConn

	mu       sync.Mutex
	messages []Message
	news     chan struct{} // closed at the next message
	holds    bool          // barriers wait
	held     []int         // their descriptors
	store    store
}

// A Message is what a process has sent.
type Message struct {
	PID  int
	Text string // an assignment a line
}

// value returns what the message assigns to a variable, or "".
func (m Message) value(name string) string {
	for line := range strings.Lines(m.Text) {
		if v, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), name+"="); ok {
			return v
		}
	}
	return ""
}

// New returns a Systemd without a store, which reads nothing before Read.
func New(tb testing.TB) *Systemd {
	tb.Helper()
	s := &Systemd{Path: filepath.Join(testenv.ShortDir(tb), "notify"), tb: tb, news: make(chan struct{})}
	var err error
	if s.c, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.Path, Net: "unixgram"}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.c.Close() })
	if err := fdx.ExpectCred(s.c); err != nil {
		tb.Fatal(err)
	}
	return s
}

// Start returns a Systemd that reads.
func Start(tb testing.TB) *Systemd {
	tb.Helper()
	s := New(tb)
	s.Read()
	return s
}

// Read begins to read, until the test ends.
func (s *Systemd) Read() {
	done := make(chan struct{})
	go func() { // ends with the socket
		defer close(done)
		for s.read() {
		}
	}()
	s.tb.Cleanup(func() {
		_ = s.c.Close()
		<-done
		s.ReleaseBarriers()
		s.EmptyStore()
	})
}

// read reads a message. It reports false at the end.
func (s *Systemd) read() bool {
	buf, oob := make([]byte, 8192), make([]byte, 1024)
	n, oobn, _, _, err := s.c.ReadMsgUnix(buf, oob)
	if err != nil {
		return false
	}
	m := Message{Text: string(buf[:n])}
	var fds []int
	all, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, cm := range all {
		if cred, err := unix.ParseUnixCredentials(&cm); err == nil {
			m.PID = int(cred.Pid)
		}
		if got, err := unix.ParseUnixRights(&cm); err == nil {
			fds = append(fds, got...)
		}
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.value("BARRIER") == "" {
		fds = s.store.receive(s.tb, m, fds)
	} else if s.holds {
		s.held, fds = append(s.held, fds...), nil
	}
	_ = fdx.Close(fds...)
	s.messages = append(s.messages, m)
	close(s.news)
	s.news = make(chan struct{})
	return true
}

// Messages returns what was read.
func (s *Systemd) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Await waits for a message that has all of parts, after the first n messages, and
// returns its number, which is at least n+1. A part that begins or ends with "\n"
// begins or ends a line.
func (s *Systemd) Await(n int, parts ...string) int {
	s.tb.Helper()
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		all, news := s.messages, s.news
		s.mu.Unlock()
		for i := n; i < len(all); i++ {
			if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains("\n"+all[i].Text+"\n", p) }) {
				return i + 1
			}
		}
		select {
		case <-news:
		case <-timeout:
			s.tb.Fatalf("systemd has received no %q after the first %d messages: %q", parts, n, all)
		}
	}
}

// HoldBarriers lets barriers wait.
func (s *Systemd) HoldBarriers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = true
}

// ReleaseBarriers lets barriers through.
func (s *Systemd) ReleaseBarriers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = fdx.Close(s.held...)
	s.held, s.holds = nil, false
}

// Fill fills the socket of a Systemd that does not read.
func (s *Systemd) Fill() {
	s.tb.Helper()
	Fill(s.tb, s.Path)
}

// Fill sends messages to the socket at path, which no process reads, until none fits.
func Fill(tb testing.TB, path string) {
	tb.Helper()
	for {
		// One sends one: a sender may have no room before the receiver has none.
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			tb.Fatal(err)
		}
		err = unix.Sendto(fd, []byte("X=1"), unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: path})
		_ = unix.Close(fd)
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			tb.Fatal(os.NewSyscallError("sendto", err))
		}
	}
}

// String describes the messages.
func (m Message) String() string { return fmt.Sprintf("%d: %q", m.PID, m.Text) }
