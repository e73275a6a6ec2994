package trust_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/trust"
)

// TestMakeFolder makes folders below safe ones, and no folder below one that another
// user may write into, that another user owns, or to which another user's link leads.
func TestMakeFolder(t *testing.T) {
	t.Parallel()
	const other = 4711
	for _, c := range []struct {
		name    string
		prepare func(dir string) error // in an empty folder; the folder to make is dir/a/b
		want    string                 // empty: no error
	}{
		{"new", func(string) error { return nil }, ""},
		{"ours", func(dir string) error { return os.Mkdir(dir+"/a", 0o755) }, ""},
		{"below our link", func(dir string) error { return os.Symlink(".", dir+"/a") }, ""},
		{"below our link to nothing", func(dir string) error { return os.Symlink("c/d", dir+"/a") }, ""},
		{"open to others", func(dir string) error { return mkdir(dir+"/a", 0o777, -1) }, "chmod go-w"},
		{"open to a group", func(dir string) error { return mkdir(dir+"/a", 0o775, -1, other) }, "chmod go-w"},
		{"open to root's group, or an ACL's user", func(dir string) error { return mkdir(dir+"/a", 0o775, 0, 0) }, "chmod go-w"},
		{"of root, sticky", func(dir string) error { return mkdir(dir+"/a", 0o777|os.ModeSticky, 0) }, ""},
		{"of another user", func(dir string) error { return mkdir(dir+"/a", 0o755, other) }, "belongs to uid 4711"},
		{"of another user, sticky", func(dir string) error { return mkdir(dir+"/a", 0o777|os.ModeSticky, other) }, "belongs to uid 4711"},
		{"the last one of another user", func(dir string) error {
			if err := os.Mkdir(dir+"/a", 0o755); err != nil {
				return err
			}
			return mkdir(dir+"/a/b", 0o700, other)
		}, "belongs to uid 4711"},
		{"below another user's link", func(dir string) error {
			if err := os.Symlink(".", dir+"/a"); err != nil {
				return err
			}
			return os.Lchown(dir+"/a", other, other)
		}, "belongs to uid 4711"},
		{"a link in its place", func(dir string) error {
			if err := os.Mkdir(dir+"/a", 0o755); err != nil {
				return err
			}
			return os.Symlink("..", dir+"/a/b")
		}, "is no folder"},
		{"links in a circle", func(dir string) error { return os.Symlink("a", dir+"/a") }, "too many levels"},
		{"a file", func(dir string) error { return os.WriteFile(dir+"/a", nil, 0o600) }, "is no folder"},
		{"the last one open", func(dir string) error { return os.MkdirAll(dir+"/a/b", 0o755) }, "chmod 700"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if strings.Contains(c.name, "root") || strings.Contains(c.name, "another") || strings.Contains(c.name, "group") {
				testenv.Need(t, "root")
			}
			dir := testenv.ShortDir(t)
			if err := c.prepare(dir); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "a", "b")
			err := trust.MakeFolder(path)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("MakeFolder() = %v, want %q in it", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if fi, err := os.Lstat(path); err != nil || fi.Mode() != os.ModeDir|0o700 {
				t.Errorf("the folder: %v, %v, want mode 0700", fi, err)
			}
			if err := trust.CheckFolder(path, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCheckFolder lets root use a folder of the user whom a server belongs to.
func TestCheckFolder(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "root")
	const other = 4711
	dir := filepath.Join(testenv.ShortDir(t), "theirs")
	if err := mkdir(dir, 0o700, other); err != nil {
		t.Fatal(err)
	}
	for owner, ok := range map[int]bool{0: false, other: true, other + 1: false} {
		if err := trust.CheckFolder(dir, owner); (err == nil) != ok {
			t.Errorf("for a server of uid %d: %v, want an error: %t", owner, err, !ok)
		}
	}
}

// mkdir makes a folder with a mode, an owner and, if there is one, a group.
func mkdir(path string, mode os.FileMode, owner int, group ...int) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if owner >= 0 || len(group) > 0 {
		gid := -1
		if len(group) > 0 {
			gid = group[0]
		}
		if err := os.Lchown(path, owner, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}
