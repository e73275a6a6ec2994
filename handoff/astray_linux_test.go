package handoff_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
)

// TestUnixPath upgrades a service with unix listeners whose paths do not lead to them: one
// is below a link that leads elsewhere by now, one was removed, and in the place of one is
// another server. An upgrade that fails changes nothing.
func TestUnixPath(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode})
		at := func(name string) string { return filepath.Join(s.set.Dir, name) }
		if err := errors.Join(os.Mkdir(at("r1"), 0o700), os.Mkdir(at("r2"), 0o700), os.Symlink("r1", at("current"))); err != nil {
			t.Fatal(err)
		}
		link, removed, taken := at("current/u"), at("removed"), at("taken")
		s.set.Sockets = []string{"unix " + link, "unix " + removed, "unix " + taken}
		s.start()
		s.mustCommit() // nothing to do
		other, err := net.Listen("unix", at("other"))
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if err := errors.Join(os.Symlink("r2", at("next")), os.Rename(at("next"), at("current")), os.Remove(removed), os.Rename(at("other"), taken)); err != nil {
			t.Fatal(err)
		}
		s.plan(plan{At: "probation", How: "abort"})
		s.mustFail("a planned abort")
		for _, path := range []string{link, removed} {
			eventually(t, path+" is not left", func() bool { _, err := os.Lstat(path); return errors.Is(err, os.ErrNotExist) })
		}
		if gen, err := ask("unix", at("r1/u")); gen != 2 || err != nil {
			t.Errorf("after the failure the old listener answers %d, %v, want 2", gen, err)
		}
		r := s.mustCommit()
		s.waitFor("the owner", func(m message) bool { return m.Kind == "owner" && m.Generation == 3 })
		for _, path := range []string{link, removed} {
			if gen, err := ask("unix", path); gen != 3 || err != nil {
				t.Errorf("%s: %d, %v, want generation 3", path, gen, err)
			}
		}
		text := strings.Join(r.Warnings, "; ")
		for _, want := range []string{link + " did not lead", removed + " did not lead", taken + " does not lead to that listener, and can't be bound anew"} {
			if !strings.Contains(text, want) {
				t.Errorf("the report warns of %q, want %q in it", text, want)
			}
		}
		if c, err := other.Accept(); err == nil { // of a look whether it serves
			_ = c.Close()
		}
		s.mustCommit()
		s.waitFor("the owner", func(m message) bool { return m.Kind == "owner" && m.Generation == 4 })
		for _, path := range []string{link, removed} {
			if gen, err := ask("unix", path); gen != 4 || err != nil {
				t.Errorf("%s: %d, %v, want generation 4", path, gen, err)
			}
		}
		s.stop()
	})
}
