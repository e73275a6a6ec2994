package spawn_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/sysfault"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// redirectMain has a pipe as its standard error for one line, and the file that is
// descriptor 3 for another. With an argument each dup3(2) of the first Restore after the first line
// fails, and more is written between the two than a pipe holds.
func redirectMain(args []string) {
	say := func(line string) {
		if _, err := os.Stderr.WriteString(line); err != nil {
			os.Exit(2)
		}
	}
	d, err := spawn.NewRedirect([]int{3, 4, 5})
	if err != nil {
		say(err.Error())
		os.Exit(1)
	}
	say("before\n")
	if len(args) > 0 {
		failed := false
		if err := sysfault.OnThread(func(sysfault.Call) syscall.Errno {
			failed = true
			return syscall.EBUSY
		}, d.Restore, unix.SYS_DUP3); err != nil || !failed {
			say(fmt.Sprintf("no call has failed: %v", err))
		}
		for range redirectLines {
			say("between\n")
		}
	}
	d.Restore()
	d.Restore()
	say("after\n")
	d.Close()
}

// redirectLines are more lines than a pipe holds.
const redirectLines = 20_000

// TestRedirect has a successor write to the pipe until it restores its standard error,
// while the predecessor reads it, and when the predecessor has ended, also where the
// system call fails that restores it: all that the successor writes arrives.
func TestRedirect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		reads   bool
		args    []string
		between string
	}{
		{"predecessor reads", true, nil, ""},
		{"predecessor has ended", false, nil, ""},
		{"predecessor has ended, dup3 fails", false, []string{"fails"}, strings.Repeat("between\n", redirectLines)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd := testmain.Command(t, "redirect", tt.args...)
			cmd.ExtraFiles = []*os.File{out, r, w}
			if tt.reads {
				c, err := spawn.NewCapture(out)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				fds := c.Descriptors()
				for i := range cmd.ExtraFiles {
					fd, err := fdx.DupFD(fds[i])
					if err != nil {
						t.Fatal(err)
					}
					cmd.ExtraFiles[i] = os.NewFile(uintptr(fd), "inherited")
					defer cmd.ExtraFiles[i].Close()
				}
				c.CloseWriter()
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_, _ = r.Close(), w.Close()
			hung := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
			defer hung.Stop()
			if err := cmd.Wait(); err != nil {
				t.Errorf("the successor: %v", err)
			}
			got, err := os.ReadFile(out.Name())
			if err != nil {
				t.Fatal(err)
			}
			// What was in the pipe may come after what is written past it.
			rest := string(got)
			for _, line := range []string{"before\n", "after\n"} {
				if !strings.Contains(rest, line) {
					t.Errorf("standard error has no %q", line)
				}
				rest = strings.Replace(rest, line, "", 1)
			}
			if rest != tt.between {
				t.Errorf("standard error has %d bytes between the two lines, want %d: %.40q", len(rest), len(tt.between), rest)
			}
		})
	}
}
