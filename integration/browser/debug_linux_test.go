package browser_test

import (
	"errors"
	"fmt"
	"image"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffdebug"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// upgraded is a service that has seen an upgrade that failed, and one whose
// predecessor lingers. It returns the URL of its page.
func upgraded(t *testing.T) string {
	t.Helper()
	dir := testenv.ShortDir(t)
	program := testenv.Script(t, "exit 3\n")
	next := func(version string) *handoff.Upgrader {
		up, err := handoff.New(&handoff.Config{
			Name: "shop", Mode: handoff.Takeover, ControlSocket: filepath.Join(dir, "c", "s"), Version: version,
			Executable: program, Probation: -1, LingerTimeout: time.Hour, UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = up.Close() })
		return up
	}
	first := next("<b>1.0</b>")
	ln, err := first.ListenNamed(t.Context(), "web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if err := first.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := first.Upgrade(t.Context()); !errors.Is(err, handoff.ErrSuccessorDied) {
		t.Fatalf("Upgrade() = %v, want ErrSuccessorDied", err)
	}
	client, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	lingers, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lingers.Close() })

	second := next("2.0")
	if ln, err = second.ListenNamed(t.Context(), "web", "tcp", addr); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(handoffdebug.Path, handoffdebug.Handler(second))
	server := &http.Server{Handler: mux}
	served := make(chan struct{})
	go func() { // ends with Close
		defer close(served)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	if err := second.Ready(); err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	return "http://" + addr + handoffdebug.Path
}

// TestDebugPage has a browser show the page, in both schemes and on a narrow
// screen. The picture's background says that the style was applied: the browser
// has found it to be the one that the page's policy allows.
func TestDebugPage(t *testing.T) {
	testenv.Long(t, "handoff/handoffdebug.TestPage")
	b := newBrowser(t)
	url := upgraded(t)
	dom := b.dom(t, url)
	for _, want := range []string{
		"<title>shop: serving, generation 2</title>", ">committed</span>", ">failed</span>", "Lingering predecessors", "&lt;b&gt;1.0&lt;/b&gt;",
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("the browser's page has no %q", want)
		}
	}
	if n := strings.Count(dom, "<h2"); n != 3 {
		t.Errorf("the browser's page has %d parts, want 3", n)
	}
	for _, c := range []struct {
		name, size string
		args       []string
		back       string
	}{
		{"light", "1200,1000", []string{"--blink-settings=preferredColorScheme=1"}, "f6f7f9"},
		{"dark", "1200,1000", []string{"--blink-settings=preferredColorScheme=0"}, "12151b"},
		{"narrow", "500,1400", []string{"--blink-settings=preferredColorScheme=1"}, "f6f7f9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			picture := b.shot(t, url, c.size, c.args...)
			r, g, blue, _ := picture.At(1, 1).RGBA()
			if back := fmt.Sprintf("%02x%02x%02x", r>>8, g>>8, blue>>8); back != c.back {
				t.Errorf("background %s, want %s", back, c.back)
			}
			if n := colours(picture); n < 100 {
				t.Errorf("%d colours, want a page with text", n)
			}
			// A page that is wider than the screen would have its right edge cut.
			edge := picture.Bounds().Max.X - 2
			for y := range picture.Bounds().Max.Y {
				if picture.At(edge, y) != picture.At(1, 1) {
					t.Fatalf("the page runs over the right edge, at line %d", y)
				}
			}
		})
	}
}

func colours(picture image.Image) int {
	found := make(map[string]bool)
	for y := range picture.Bounds().Max.Y {
		for x := range picture.Bounds().Max.X {
			found[fmt.Sprint(picture.At(x, y))] = true
		}
	}
	return len(found)
}
