package browser_test

import (
	"errors"
	"fmt"
	"html"
	"image"
	"net"
	"net/http"
	"net/http/httptest"
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
// predecessor lingers. It returns its URL.
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
	page := handoffdebug.Handler(second)
	mux.Handle(handoffdebug.Path, page)
	mux.HandleFunc("/phone", phone(page))
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
	return "http://" + addr
}

// phoneWidth is that of a common phone, in pixels of CSS. Chromium's window is not narrower
// than 500.
const phoneWidth = 390

// phone returns a page with a frame as wide as a phone, which shows page. The policy of the
// real one allows no frame.
func phone(page http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		inner := httptest.NewRecorder()
		page.ServeHTTP(inner, httptest.NewRequestWithContext(r.Context(), http.MethodGet, handoffdebug.Path, nil))
		_, _ = fmt.Fprintf(w, `<body style="margin: 0; background: #888"><iframe style="border: 0; width: %dpx; height: 2000px" srcdoc="%s"></iframe>`,
			phoneWidth, html.EscapeString(inner.Body.String())) // the browser may have gone
	}
}

// TestDebugPage has a browser show the page, in both schemes and on the screen
// of a phone. The picture's background says that the style was applied: the browser
// has found it to be the one that the page's policy allows.
func TestDebugPage(t *testing.T) {
	testenv.Long(t, "handoff/handoffdebug.TestPage")
	b := newBrowser(t)
	url := upgraded(t)
	dom := b.dom(t, url+handoffdebug.Path)
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
		name, path, size string
		width            int
		args             []string
		back             string
	}{
		{"light", handoffdebug.Path, "1200,1000", 1200, []string{"--blink-settings=preferredColorScheme=1"}, "f6f7f9"},
		{"dark", handoffdebug.Path, "1200,1000", 1200, []string{"--blink-settings=preferredColorScheme=0"}, "12151b"},
		{"phone", "/phone", "500,2000", phoneWidth, []string{"--blink-settings=preferredColorScheme=0"}, "12151b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			picture := b.shot(t, url+c.path, c.size, c.args...)
			r, g, blue, _ := picture.At(1, 1).RGBA()
			if back := fmt.Sprintf("%02x%02x%02x", r>>8, g>>8, blue>>8); back != c.back {
				t.Errorf("background %s, want %s", back, c.back)
			}
			if n := colours(picture); n < 100 {
				t.Errorf("%d colours, want a page with text", n)
			}
			// A page that is wider than the screen would have its right edge cut.
			edge := c.width - 2
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
