package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/handofftls"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// machineChecks examine the kernel and this user's limits.
func machineChecks(ctx context.Context) []check {
	return []check{
		{"kernel", checkKernel},
		{"sockets over a unix socket", checkMemfd},
		{"reuseport steering", func() finding { return checkSteering(ctx) }},
		{"tcp_migrate_req", checkMigrate},
		{"inet_diag", checkDiag},
		{"open files", checkFiles},
		{"accept queue", checkSomaxconn},
		{"TLS connections", checkTLS},
		{"PID 1", checkInit},
		{"systemd", checkSystemd},
	}
}

func checkKernel() finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding{Verdict: warning, Found: os.NewSyscallError("uname", err).Error()}
	}
	return finding{Verdict: ok, Found: "Linux " + unix.ByteSliceToString(u.Release[:])}
}

// checkMemfd makes a sealed memory file, which the state of a server is passed on in.
func checkMemfd() finding {
	fd, err := unix.MemfdCreate("baton-doctor", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
		_ = unix.Close(fd) // no data to lose
	}
	if err != nil {
		return finding{Verdict: problem, Found: os.NewSyscallError("memfd_create", err).Error(), Advice: "state can't be passed on: allow memfd_create(2) and F_ADD_SEALS in the seccomp profile"}
	}
	return finding{Verdict: ok, Found: "sealed memory files work"}
}

// checkSteering steers connections in a group of its own.
func checkSteering(ctx context.Context) finding {
	const advice = "mode drain and package reuseport then rely on tcp_migrate_req, or can lose connections: allow setsockopt(SO_ATTACH_REUSEPORT_CBPF) in the seccomp profile"
	g, err := reuseport.ListenGroup(ctx, "tcp4", "127.0.0.1:0", &reuseport.Config{Members: 2})
	if err == nil {
		err = errors.Join(g.Steer(ctx, reuseport.CPU()), g.Close())
	}
	if err != nil {
		return finding{Verdict: warning, Found: err.Error(), Advice: advice}
	}
	return finding{Verdict: ok, Found: "connections can be steered among sockets, without privilege"}
}

func checkMigrate() finding {
	const path = "/proc/sys/net/ipv4/tcp_migrate_req"
	switch v, err := readNumber(path); {
	case errors.Is(err, os.ErrNotExist):
		return finding{Verdict: note, Found: "not in this kernel (5.14 has it)"}
	case err != nil:
		return finding{Verdict: warning, Found: err.Error()}
	case v == 1:
		return finding{Verdict: ok, Found: "1"}
	}
	return finding{Verdict: note, Found: "0", Advice: "where steering works nothing needs it; sysctl -w net.ipv4.tcp_migrate_req=1 makes the kernel save what a closed reuseport listener had queued, for programs that do not drain"}
}

// checkDiag asks the kernel about listeners that it makes.
func checkDiag() finding {
	ln, err := net.Listen("unix", "@baton-doctor-"+strconv.Itoa(os.Getpid()))
	if err != nil {
		return finding{Verdict: warning, Found: err.Error()}
	}
	defer ln.Close() // no connections
	if u, ok := ln.(*net.UnixListener); ok {
		_, _, err = reuseport.QueueLen(u)
	}
	if err == nil {
		err = tcpDiag()
	}
	if err != nil {
		return finding{Verdict: warning, Found: err.Error(), Advice: "queue lengths are unknown, and a drain can't tell when it is done: load the modules inet_diag, tcp_diag and unix_diag, and allow NETLINK_SOCK_DIAG in the seccomp profile"}
	}
	return finding{Verdict: ok, Found: "the kernel reports queue lengths, and which handshakes are under way"}
}

func tcpDiag() error {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close() // no connections
	t, ok := ln.(*net.TCPListener)
	if !ok {
		return nil // can't happen
	}
	_, _, err = reuseport.QueueLen(t)
	_, herr := reuseport.HalfOpen(t)
	return errors.Join(err, herr)
}

func checkFiles() finding {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return finding{Verdict: warning, Found: os.NewSyscallError("getrlimit", err).Error()}
	}
	f := finding{Verdict: ok, Found: fmt.Sprintf("%d, may be raised to %d", l.Cur, l.Max)}
	if l.Max < 4096 {
		f.Verdict = warning
		f.Advice = "a server with that many connections can't take over its predecessor's: raise LimitNOFILE= of its unit, or ulimit -Hn"
	}
	return f
}

func checkSomaxconn() finding {
	n, err := readNumber("/proc/sys/net/core/somaxconn")
	if err != nil {
		return finding{Verdict: warning, Found: err.Error()}
	}
	f := finding{Verdict: ok, Found: fmt.Sprint("up to ", n, " connections")}
	if n < 1024 {
		f.Verdict = warning
		f.Advice = "connections that arrive while a successor takes over wait in the queue: sysctl -w net.core.somaxconn=4096"
	}
	return f
}

// checkTLS moves TLS connections in memory. FIPS mode is this process's: a service has it
// where its environment has the same GODEBUG.
func checkTLS() finding {
	if err := new(handofftls.Config).Probe(); err != nil {
		return finding{Verdict: note, Found: err.Error(), Advice: "TLS connections do not move to a successor in this environment: they are served to their end"}
	}
	return finding{Verdict: ok, Found: "can move to a successor, where the program has MoveTLS"}
}

// checkInit examines the process that adopts orphans.
func checkInit() finding {
	b, err := os.ReadFile("/proc/1/comm")
	if err != nil {
		return finding{Verdict: note, Found: err.Error()}
	}
	name := strings.TrimSpace(string(b))
	dead, err := zombies(1)
	switch {
	case err != nil:
		return finding{Verdict: note, Found: name + ": " + err.Error()}
	case dead > maxZombies:
		return finding{
			Verdict: warning, Found: fmt.Sprintf("%s does not wait for its children: %d have ended", name, dead),
			Advice: "it adopts a successor whose predecessor has ended, and leaves it a zombie when it ends: run baton run as PID 1, or another init that waits for its children",
		}
	}
	return finding{Verdict: ok, Found: name + " waits for its children, so for successors whose predecessors have ended"}
}

// maxZombies is the number of zombies that may only just have ended.
const maxZombies = 3

// zombies counts the children of a process that have ended and that it has not waited
// for.
func zombies(parent int) (int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err // can't happen
	}
	dead := 0
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		// proc_pid_stat(5): the name, in brackets, may contain any character.
		_, rest, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')')+1:]), " ")
		if f := strings.Fields(rest); len(f) > 1 && f[0] == "Z" && f[1] == strconv.Itoa(parent) {
			dead++
		}
	}
	return dead, nil
}

// checkServerFiles examines a server's limit of open descriptors. In an upgrade the
// successor needs as many descriptors as the server.
func checkServerFiles(pid int) finding {
	var l unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &l); err != nil {
		return finding{Verdict: note, Found: os.NewSyscallError("prlimit", err).Error()}
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return finding{Verdict: note, Found: err.Error()}
	}
	f := finding{Verdict: ok, Found: fmt.Sprintf("%d of %d are in use", len(open), l.Cur)}
	if uint64(len(open)) > l.Cur/5*4 {
		f.Verdict = warning
		f.Advice = "each connection needs a descriptor, and an upgrade a few more: raise LimitNOFILE= of its unit, or ulimit -n, and restart the server"
	}
	return f
}

func checkSystemd() finding {
	// sd_booted(3)
	if _, err := os.Lstat("/run/systemd/system"); err != nil {
		return finding{Verdict: note, Found: "is not the init of this machine"}
	}
	return finding{Verdict: ok, Found: "is the init of this machine"}
}

func readNumber(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// roomFor checks whether the disk of a folder is full.
func roomFor(path string) finding {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return finding{Verdict: warning, Found: os.NewSyscallError("statfs", err).Error()}
	}
	if s.Blocks > 0 && s.Bavail == 0 || s.Files > 0 && s.Ffree == 0 {
		return finding{Verdict: problem, Found: path + ": the disk is full", Advice: "a server that starts can't create its control socket: free some space"}
	}
	return finding{Verdict: ok, Found: path}
}
