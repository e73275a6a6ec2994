package reuseport_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// denyNetlink takes AF_NETLINK from this process, as systemd's
// RestrictAddressFamilies= does.
func denyNetlink() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16}, // its first argument
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_NETLINK, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", err)
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(prog)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err == nil {
		return errors.Join(errors.New("AF_NETLINK is still there"), unix.Close(fd))
	}
	return nil
}

// helperSandbox drains a member with a queue where sock_diag can't be asked, once
// beside another member and once alone, and reports what came of it.
func helperSandbox([]string) {
	if err := denyNetlink(); err != nil {
		fmt.Println("no sandbox:", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, others := range []bool{true, false} {
		l, err := reuseport.Listen(ctx, "tcp4", "127.0.0.1:0", nil)
		if err != nil {
			panic(err)
		}
		conns := make(chan error, 20)
		for range cap(conns) {
			go func() { conns <- exchange(l.Addr().String()) }() // ends when it is served or reset
		}
		for queued := 0; queued < cap(conns); {
			if queued, _, err = reuseport.QueueLen(l); err != nil || ctx.Err() != nil {
				panic(fmt.Sprint(queued, " are queued: ", err, ctx.Err()))
			}
		}
		if others {
			stay, err := reuseport.Listen(ctx, "tcp4", l.Addr().String(), nil)
			if err != nil {
				panic(err)
			}
			go serveEcho(stay) // ends with the process
		}
		go serveEcho(l) // ends with the drain
		r, err := l.Drain(ctx)
		lost := make(tally)
		for range cap(conns) {
			lost.note(<-conns)
		}
		fmt.Printf("lost %d, left %d, waited %t, reason %t, possible %t, %v\n", lost.lost(), r.Left, r.WaitedFor != "",
			strings.Contains(r.Reason, "sock_diag"), r.LossPossible && r.Strategy != reuseport.StrategyBestEffort, err)
	}
}

// What is queued is served where the group can't be looked at, too.
func TestDrainWithoutNetlink(t *testing.T) {
	t.Parallel()
	out, err := testmain.Command(t, "sandbox").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(string(out), "no sandbox") {
		t.Skipf("needs seccomp: %s", out)
	}
	const want = "lost 0, left 0, waited true, reason true, possible false, <nil>\n"
	if got := string(out); got != want+want {
		t.Errorf("Drain beside another member and alone:\n%swant twice:\n%s", got, want)
	}
}
