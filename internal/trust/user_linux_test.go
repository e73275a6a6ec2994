package trust_test

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/internal/trust"
)

// overflow is the overflow uid, unless an administrator has changed it.
const overflow = 65534

// TestUser trusts root and the process's own user, but not by the overflow uid where the
// user namespace does not map all users.
func TestUser(t *testing.T) {
	t.Parallel()
	if own := os.Geteuid(); !trust.User(own) || !trust.User(0) || trust.User(own+1) {
		t.Errorf("User(%d, 0, %d) = %t, %t, %t", own, own+1, trust.User(own), trust.User(0), trust.User(own+1))
	}
	mapped := []syscall.SysProcIDMap{{ContainerID: overflow, HostID: os.Getuid(), Size: 1}}
	for _, c := range []struct {
		name string
		uid  int
		attr syscall.SysProcAttr
		want bool
	}{
		{"the overflow uid where all are mapped", overflow, syscall.SysProcAttr{Credential: &syscall.Credential{Uid: overflow, Gid: overflow, NoSetGroups: true}}, true},
		{"the overflow uid without a map", overflow, syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}, false},
		{"the overflow uid as the only one that is mapped", overflow, syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: mapped}, false},
		{"root without a map", 0, syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}, true},
	} {
		if c.attr.Credential != nil && os.Geteuid() != 0 {
			continue // only root can become another user
		}
		cmd := testmain.Command(t, "user", strconv.Itoa(c.uid))
		cmd.SysProcAttr = &c.attr
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Skipf("no user namespace here: %v", err)
		}
		if got := err == nil; got != c.want {
			t.Errorf("%s: User(%d) = %t, want %t", c.name, c.uid, got, c.want)
		}
	}
}
