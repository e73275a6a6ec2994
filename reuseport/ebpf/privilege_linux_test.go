package ebpf_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/reuseport"
	"github.com/seed-11c92bf9/baton/reuseport/ebpf"
)

// TestPrivilege runs a process that has the capabilities of a row and no other:
// CAP_BPF is what it takes, and all that it takes.
func TestPrivilege(t *testing.T) {
	testenv.Need(t, "root") // to start processes of others
	t.Parallel()
	if err := newProgram(t).Close(); err != nil {
		t.Fatal(err)
	}
	program := programForAll(t)
	const lacks, forbidden = "CAP_BPF, which this process does not have", "user namespace"
	for _, c := range []struct {
		name string
		caps []uintptr // of uid 65534
		root bool      // of a user namespace, with all capabilities that it has
		text string    // in the error; empty means that it works
	}{
		{name: "CAP_BPF", caps: []uintptr{unix.CAP_BPF}},
		{name: "none", text: lacks},
		{name: "those of the network", caps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}, text: lacks},
		{name: "CAP_PERFMON", caps: []uintptr{unix.CAP_PERFMON}, text: lacks},
		{name: "CAP_SYS_ADMIN", caps: []uintptr{unix.CAP_SYS_ADMIN}}, // which had been it before 5.8
		{name: "root of a user namespace", root: true, text: forbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cmd := testmain.Command(t, "privilege")
			cmd.Path, cmd.Dir = program, "/"
			if c.root {
				cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER
				cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}}
				cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}}
				cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true}
			} else {
				cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
				cmd.SysProcAttr.AmbientCaps = c.caps
			}
			var out, log bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &log
			err := cmd.Run()
			if c.root && cmd.Process == nil && slices.ContainsFunc([]error{unix.EPERM, unix.ENOSPC, unix.EINVAL}, func(e error) bool { return errors.Is(err, e) }) {
				testmain.Skipped()
				t.Skipf("no user namespaces here: %v", err) // clone(2)
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, log.String())
			}
			var got verdict
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v: %s", err, out.String())
			}
			t.Logf("%+v", got)
			var want uint64
			for _, bit := range c.caps {
				want |= 1 << bit
			}
			if !c.root && (got.UID != 65534 || got.Caps != want) {
				t.Fatalf("ran as uid %d with capabilities %#x, want 65534, %#x", got.UID, got.Caps, want)
			}
			if c.text == "" {
				if got.Err != "" {
					t.Error(got.Err)
				}
				return
			}
			if !got.Permission || !strings.Contains(got.Err, c.text) {
				t.Errorf("New = %q, ErrPermission %t, want ErrPermission and %q", got.Err, got.Permission, c.text)
			}
		})
	}
}

// programForAll returns a copy of this program in a folder that others may enter.
func programForAll(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := testenv.ShortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "program")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// verdict is what a process found out.
type verdict struct {
	UID        int
	Caps       uint64 // effective
	Err        string
	Permission bool // Err matches fs.ErrPermission
}

// privilege is the process: it uses a program if it may.
func privilege([]string) {
	v := verdict{UID: os.Getuid()}
	var data [2]unix.CapUserData
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0])
	if err == nil {
		v.Caps = uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
		err = drainOne()
	}
	if err != nil {
		v.Err, v.Permission = err.Error(), errors.Is(err, fs.ErrPermission)
	}
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		panic(err)
	}
}

// drainOne has a member leave with handshakes under way, from which nothing is
// accepted: what it held moves to the other member, by the program alone.
func drainOne() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := ebpf.New()
	if err != nil {
		return err
	}
	g, err := reuseport.ListenGroup(ctx, "tcp4", "127.0.0.1:0", &reuseport.Config{Members: 2})
	if err != nil {
		return errors.Join(err, p.Close())
	}
	defer g.Close()
	if err := g.Use(ctx, p); err != nil {
		return errors.Join(err, p.Close())
	}
	ms := g.Members()
	for _, l := range ms {
		if err := deferAccept(l); err != nil {
			return err
		}
	}
	conns, err := dialMany(g.Addr().String(), 20)
	for _, c := range conns {
		defer c.Close()
	}
	if err != nil {
		return err
	}
	if n, err := reuseport.HalfOpen(ms[0]); err != nil || n == 0 {
		return fmt.Errorf("%d handshakes are under way where the drain begins, %w", n, err)
	}
	if r, err := g.Remove(ctx, ms[0]); err != nil || r.Strategy != reuseport.StrategySteerer || r.LossPossible {
		return fmt.Errorf("Remove = %+v, %w", r, err)
	}
	var served atomic.Int64
	go serve(ms[1], &served) // ends with the group
	for _, c := range conns {
		if err := ask(c); err != nil {
			return err
		}
	}
	return nil
}
