package browser_test

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// patience bounds each run of the browser, which is slow to start where the
// machine is busy.
const patience = 2 * time.Minute

// browser is the path of a browser that can do without a screen.
type browser string

// newBrowser skips the test where there is none.
func newBrowser(t *testing.T) browser {
	t.Helper()
	testenv.Need(t, "chromium")
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal(err)
	}
	return browser(path)
}

// run starts the browser with arguments of its own, and returns its standard
// output. What it complains about is an error of the page.
func (b browser) run(t *testing.T, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all := []string{
		"--headless", "--disable-gpu", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(), "--enable-logging=stderr",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-breakpad", "--disable-dev-shm-usage",
	}
	if os.Geteuid() == 0 {
		all = append(all, "--no-sandbox") // it refuses to start otherwise
	}
	cmd := exec.CommandContext(ctx, string(b), append(all, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second // its children may hold the pipes
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", b, err, stderr.Bytes())
	}
	for line := range strings.Lines(stderr.String()) {
		if strings.Contains(line, "CONSOLE") || strings.Contains(line, "Content Security Policy") {
			t.Errorf("the browser complains: %s", line)
		}
	}
	return stdout.Bytes()
}

// dom returns the page as the browser has understood it.
func (b browser) dom(t *testing.T, url string) string {
	t.Helper()
	return string(b.run(t, "--dump-dom", url))
}

// shot returns a picture of the page.
func (b browser) shot(t *testing.T, url, size string, args ...string) image.Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "page.png")
	b.run(t, append(args, "--window-size="+size, "--screenshot="+path, url)...)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return picture
}
