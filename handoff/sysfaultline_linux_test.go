package handoff_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/sysfault"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// A callClass is system calls that a row of TestSystemCalls fails.
type callClass struct {
	name    string
	numbers []uintptr
	// counts reports whether a call of the process is one that Baton or its engine asks
	// for; nil means yes.
	counts func(pid int, c sysfault.Call) bool
}

func callClasses() []callClass {
	// A connection of a client that Go's package net can't set up, or that the service
	// closes, is no matter of Baton's.
	socket := func(arg int) func(int, sysfault.Call) bool {
		return func(pid int, c sysfault.Call) bool { return !ofClient(pid, int(c.Args[arg])) }
	}
	return []callClass{
		{"sendmsg", []uintptr{unix.SYS_SENDMSG}, nil},
		{"recvmsg", []uintptr{unix.SYS_RECVMSG}, nil},
		{"accept4", []uintptr{unix.SYS_ACCEPT4}, nil},
		{"close", []uintptr{unix.SYS_CLOSE}, socket(0)},
		{"dup", []uintptr{unix.SYS_DUP, unix.SYS_DUP3}, nil},
		{"fcntl", []uintptr{unix.SYS_FCNTL}, socket(0)},
		{"epoll_ctl", []uintptr{unix.SYS_EPOLL_CTL}, socket(2)},
		{"pidfd_open", []uintptr{unix.SYS_PIDFD_OPEN}, nil},
		{"memfd_create", []uintptr{unix.SYS_MEMFD_CREATE}, nil},
		// Go's runtime ends the process where it gets no thread.
		{"clone", []uintptr{unix.SYS_CLONE}, func(_ int, c sysfault.Call) bool { return c.Args[0]&unix.CLONE_THREAD == 0 }},
		{"execve", []uintptr{unix.SYS_EXECVE}, nil},
		{"rename", []uintptr{unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2}, nil},
		{"openat", []uintptr{unix.SYS_OPENAT}, func(_ int, c sysfault.Call) bool { return opensProc(c) }},
	}
}

// ofClient reports whether a descriptor of a process is a connection over TCP, or none.
func ofClient(pid, fd int) bool {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true // it has ended
	}
	defer unix.Close(process)
	s, err := unix.PidfdGetfd(process, fd, 0)
	if err != nil {
		return true
	}
	defer unix.Close(s)
	peer, err := unix.Getpeername(s)
	if err != nil {
		return false
	}
	_, local := peer.(*unix.SockaddrUnix)
	return !local
}

// opensProc reports whether a call of openat(2) is for a path of proc(5).
func opensProc(c sysfault.Call) bool {
	const proc = "/proc/"
	text := make([]byte, len(proc))
	local := []unix.Iovec{{Base: &text[0]}}
	local[0].SetLen(len(text))
	n, err := unix.ProcessVMReadv(c.Thread, local, []unix.RemoteIovec{{Base: uintptr(c.Args[1]), Len: len(text)}}, 0)
	return err == nil && n == len(text) && string(text) == proc
}

// role is a side of an upgrade.
type role string

const (
	predecessor role = "predecessor"
	successor   role = "successor"
)

// A sysFault is a system call that fails once in an upgrade: the nth of its class in a
// process of a role.
type sysFault struct {
	role  role
	class string
	errno syscall.Errno
	nth   int
}

func (f sysFault) String() string {
	return fmt.Sprintf("%s of the %s, call %d: %s", f.class, f.role, f.nth, unix.ErrnoName(f.errno))
}

// An injector answers the system calls of the processes of a service.
type injector struct {
	serving sync.WaitGroup

	mu    sync.Mutex
	pred  int // the predecessor's process ID
	fault *sysFault
	calls map[role]map[string]int // since the injector was armed
	hit   bool                    // the fault has happened
	pids  map[int]int             // the processes of threads
}

// arm has a fault, if there is one, happen in the upgrade of the process pred.
func (j *injector) arm(pred int, f *sysFault) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pred, j.fault, j.hit = pred, f, false
	j.calls = map[role]map[string]int{predecessor: {}, successor: {}}
}

// result disarms and returns whether the fault has happened, and the calls since arm.
func (j *injector) result() (bool, map[role]map[string]int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fault = nil
	calls := j.calls
	j.calls = nil
	return j.hit, calls
}

// fail answers a call.
func (j *injector) fail(c sysfault.Call) syscall.Errno {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.calls == nil || j.fault != nil && j.hit {
		return 0
	}
	pid := j.process(c.Thread)
	who := successor
	if pid == j.pred {
		who = predecessor
	}
	for _, class := range callClasses() {
		for _, nr := range class.numbers {
			if nr != c.Number || j.fault != nil && (j.fault.class != class.name || j.fault.role != who) ||
				class.counts != nil && !class.counts(pid, c) {
				continue
			}
			j.calls[who][class.name]++
			if j.fault == nil || j.calls[who][class.name] != j.fault.nth {
				return 0
			}
			j.hit = true
			return j.fault.errno
		}
	}
	return 0
}

// process returns the process of a thread.
func (j *injector) process(thread int) int {
	if pid, ok := j.pids[thread]; ok {
		return pid
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return thread
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "Tgid:"); ok {
			if pid, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
				j.pids[thread] = pid
				return pid
			}
		}
	}
	return thread
}

// newInjector returns an injector, to be made before the service.
func newInjector(tb testing.TB) *injector {
	j := &injector{pids: make(map[int]int)}
	tb.Cleanup(j.serving.Wait) // after the service's
	return j
}

// begin starts a process of the service whose system calls j answers, as those of all
// processes that it starts.
func (j *injector) begin(s *service) {
	s.tb.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.tb.Fatal(err)
	}
	defer r.Close()
	cmd := s.commandFor("filtered")
	cmd.ExtraFiles = []*os.File{w}
	s.startCommand(cmd)
	_ = w.Close()
	text, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		s.tb.Fatalf("no filter: %v\n%s", err, s.log())
	}
	number, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		s.tb.Skip(text)
	}
	process, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer unix.Close(process)
	listener, err := unix.PidfdGetfd(process, number, 0)
	if err != nil {
		s.tb.Fatal(err)
	}
	j.serving.Go(func() { // ends with the processes
		if err := errors.Join(sysfault.Serve(listener, j.fail), unix.Close(listener)); err != nil {
			s.tb.Error(err)
		}
	})
}

const envFiltered = "BATON_TEST_FILTERED"

// filteredMain filters its system calls, and becomes a process of the service.
func filteredMain(args []string) {
	if os.Getenv(envFiltered) != "" {
		serviceMain(args)
		return
	}
	runtime.LockOSThread()
	tell := os.NewFile(3, "tell")
	exe, err := os.Executable()
	unix.CloseOnExec(3)
	if err := errors.Join(err, os.Setenv(envFiltered, "1")); err != nil {
		fail("filter", err)
	}
	env := os.Environ()
	var numbers []uintptr
	for _, class := range callClasses() {
		numbers = append(numbers, class.numbers...)
	}
	listener, err := sysfault.Install(false, numbers...)
	if err != nil {
		_, _ = fmt.Fprintln(tell, err)
		return
	}
	if _, err := fmt.Fprintln(tell, listener); err != nil { // write(2) is not filtered
		fail("filter", err)
	}
	fail("filter", unix.Exec(exe, os.Args[:1], env))
}

// clientCount is what the clients have seen so far.
type clientCount struct {
	Asked, Failed int
	Errors        []string // the first ones
}

// clients is a process of clients that ask at an address without pause, and send
// nothing twice.
type clients struct {
	tb  testing.TB
	in  io.WriteCloser
	out *bufio.Reader
}

func startClients(tb testing.TB, addr string) *clients {
	tb.Helper()
	cmd := testmain.Command(tb, "clients", addr)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close() // which ends it
		_ = cmd.Wait()
	})
	return &clients{tb, in, bufio.NewReader(out)}
}

// count returns what the clients have seen, once they have asked more questions.
func (c *clients) count(more int) (n clientCount) {
	c.tb.Helper()
	_, err := fmt.Fprintln(c.in, more)
	if err != nil {
		c.tb.Fatal(err)
	}
	line, err := c.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &n)
	}
	if err != nil {
		c.tb.Fatalf("clients: %v", err)
	}
	return n
}

// clientsMain asks over connections with one question, and over one with many.
func clientsMain(args []string) {
	var mu sync.Mutex
	var total clientCount
	note := func(what string, err error) {
		mu.Lock()
		defer mu.Unlock()
		total.Asked++
		if err != nil {
			if total.Failed++; len(total.Errors) < 20 {
				total.Errors = append(total.Errors, what+": "+err.Error())
			}
		}
	}
	for _, questions := range []int{1, 1, 20} {
		go func() { // ends with the process
			for {
				c, err := net.DialTimeout("tcp", args[0], patience)
				for n := 0; n < questions && err == nil; n++ {
					_, err = askOver(c, fmt.Sprintf("q%d", n))
					note(fmt.Sprintf("question %d of %d", n+1, questions), err)
					<-time.After(2 * time.Millisecond)
				}
				if c == nil {
					note("dial", err)
					<-time.After(2 * time.Millisecond)
					continue
				}
				_ = c.Close()
			}
		}()
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		more, err := strconv.Atoi(lines.Text())
		if err != nil {
			panic(err)
		}
		mu.Lock()
		until := total.Asked + more
		for total.Asked < until {
			mu.Unlock()
			<-time.After(time.Millisecond)
			mu.Lock()
		}
		b, err := json.Marshal(total)
		mu.Unlock()
		if err != nil {
			panic(err)
		}
		fmt.Println(string(b))
	}
}
