package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) { testmain.Run(m) }

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string // in what is printed
	}{
		{nil, "usage: baton-demo COMMAND"},
		{[]string{"dance"}, `unknown command "dance"`},
		{[]string{"demo", "now"}, `unexpected argument "now"`},
		{[]string{"demo", "-upgrades", "0"}, "at least 1"},
		{[]string{"serve"}, "-dir is required"},
		{[]string{"serve", "-mode", "magic"}, "invalid value"},
		{[]string{"load"}, "no address"},
	} {
		var out bytes.Buffer
		err := run(c.args, &out, &out)
		if !errors.Is(err, errUsage) || !strings.Contains(out.String(), c.want) {
			t.Errorf("run(%q) = %v, printed %q, want a usage error with %q", c.args, err, &out, c.want)
		}
	}
	var out bytes.Buffer
	if err := run([]string{"version"}, &out, &out); err != nil || out.String() != version+"\n" {
		t.Errorf("version: %q, %v, want %q", &out, err, version)
	}
}
