package inherit_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/inherit"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestEngine runs in a process of its own: tableflip allows one Upgrader in each.
func TestEngine(t *testing.T) {
	const own = "BATON_TEST_ENGINE"
	if os.Getenv(own) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestEngine$", "-test.count=1")
		cmd.Env = append(os.Environ(), own+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	e, err := inherit.New(time.Minute, func(err error) error { return fmt.Errorf("explained: %w", err) })
	if err != nil {
		t.Fatal(err)
	}
	if e.HasParent() {
		t.Error("HasParent() = true")
	}
	<-e.ParentEnded().Done()
	if h, err := e.Open(&wire.Socket{Kind: wire.KindListener, Network: "tcp", Address: ":80"}); h != nil || err != nil {
		t.Errorf("Open() = %v, %v, and nothing was inherited", h, err)
	}
	if c, err := e.Conversation(); c != nil || err != nil {
		t.Errorf("Conversation() = %v, %v, and nothing was inherited", c, err)
	}

	path := filepath.Join(testenv.ShortDir(t), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	named := &wire.Socket{Kind: wire.KindListener, Name: "web", Network: "tcp", Address: ":80"}
	if err := errors.Join(e.Add(&wire.Socket{Kind: wire.KindListener, Network: "unix", Address: path}, ln), e.Add(named, tcp.(sockets.Handle))); err != nil {
		t.Fatal(err)
	}
	// A socket that its user has closed is closed in tableflip, too.
	if err := errors.Join(tcp.Close(), e.Forget(named)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; <-time.After(10 * time.Millisecond) { // the collector closes it
		c, err := net.Dial("tcp", tcp.Addr().String())
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("tableflip has a socket that it was to forget: %v", err)
		}
		_ = c.Close()
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}

	// tableflip looks os.Args[0] up again when it starts a successor.
	program := os.Args[0]
	os.Args[0] = filepath.Join(t.TempDir(), "not-there")
	conv, err := e.AddConversation()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(nil); !errors.Is(err, syscall.ENOENT) || !strings.HasPrefix(err.Error(), "explained") {
		t.Errorf("Start() = %v, want ENOENT, explained", err)
	}
	os.Args[0] = program
	_ = conv.Close()

	e.Stop(false)
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("Stop(false) has removed the path: %v", err)
	}
	e.Stop(true)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stop(true) has not removed the path: %v", err)
	}
}

func TestCause(t *testing.T) {
	t.Parallel()
	odd := errors.New("odd")
	for _, tt := range []struct{ err, want error }{
		{fmt.Errorf("can't start child: %s", syscall.EMFILE), syscall.EMFILE},
		{fmt.Errorf("fork/exec /x: %s", syscall.ENOEXEC), syscall.ENOEXEC},
		{odd, odd},
	} {
		if got := inherit.Cause(tt.err); got != tt.want {
			t.Errorf("cause(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
}

// TestCheck runs with os.Args[0] as a shell may set it.
func TestCheck(t *testing.T) {
	program := os.Args[0]
	defer func() { os.Args[0] = program }()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	for _, tt := range []struct {
		arg, dir, path string
		program        error
		want           error
	}{
		{program, dir, program, nil, nil},
		{program, dir, program, gone, gone},
		{program, "/elsewhere", program, nil, nil}, // absolute
		{"./doc.go", "/elsewhere", filepath.Join(dir, "doc.go"), nil, failure.Unsupported},
		{"./doc.go", dir, filepath.Join(dir, "doc.go"), nil, failure.Unsupported}, // no program
		{"sh", dir, sh, nil, nil},                                                 // in PATH
		{"sh", dir, sh, gone, gone},
		{"sh", dir, program, nil, failure.Unsupported}, // exec -a sh
		{"no-such-program-in-path", dir, program, nil, failure.Start},
	} {
		os.Args[0] = tt.arg
		if err := inherit.Check(tt.dir, tt.path, func() error { return tt.program }); !errors.Is(err, tt.want) {
			t.Errorf("%s started in %s: Check() = %v, want %v", tt.arg, tt.dir, err, tt.want)
		}
	}
}
