package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/load"
)

// envAddress is the address of all instances.
const envAddress = "BATON_TEST_ADDRESS"

// instanceMain is one of several services on one address. Its argument is its name.
func instanceMain(args []string) {
	cfg := &handoff.Config{Name: args[0], ControlSocket: filepath.Join("c", args[0], "s"), Version: args[0]}
	serve(cfg, "drain", "20ms", func(up *handoff.Upgrader) *handoff.Listener {
		ln, err := up.Listen(context.Background(), "tcp", os.Getenv(envAddress))
		must(err)
		return ln
	})
}

// TestPageInstances runs the section on several instances in a shell, under
// clients that never retry.
func TestPageInstances(t *testing.T) {
	t.Parallel()
	blocks := fenced(t, operatePage, "sh")
	if len(blocks) < 2 || !strings.Contains(blocks[1], "./api api-$i &") {
		t.Fatal("the page has no section for several instances")
	}
	address := freeAddress(t)
	s := newShell(t, "instance", envAddress+"="+address)
	names := []string{"api-1", "api-2", "api-3"}
	var p *pressed
	for line := range strings.Lines(blocks[1]) {
		s.do(strings.TrimSpace(line))
		if p == nil { // all instances are started
			for _, name := range names {
				s.answers(name)
			}
			p = press(t, address, load.Once)
			p.until("all instances", func(st load.Stats) bool {
				for _, name := range names {
					if st.Targets[string(load.Once)].Versions[name] == 0 {
						return false
					}
				}
				return true
			})
		}
	}
	p.more(100)
	for _, name := range names {
		if said := s.do("baton status " + name); !strings.Contains(said, "serving  generation 2 ") {
			t.Errorf("%s:\n%s", name, said)
		}
	}
	st := p.clean()
	t.Logf("3 instances upgraded one after another, %d connections, %d failed", st.Connections, st.Failed)
	for _, name := range names {
		s.do(fmt.Sprintf("baton drain %s", name))
	}
	s.end()
}
