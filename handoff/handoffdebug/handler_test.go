package handoffdebug_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffdebug"
)

// fixed is a Source that says always the same.
type fixed handoff.Status

func (f fixed) Status() handoff.Status { return handoff.Status(f) }

var when = time.Date(2026, time.July, 1, 12, 30, 0, 0, time.UTC)

func serving() fixed {
	return fixed{
		Name: "api", PID: 4711, UID: 33, Generation: 3, Version: "1.4.2",
		Build:      "example.org/api v1.4.2 0123456789ab, go1.25.0",
		Executable: "/usr/local/bin/api", Mode: handoff.Takeover, State: handoff.StateServing,
		Started: when, Uptime: 26*time.Hour + 30*time.Minute, Open: 17, Remaining: -1, Accepted: 99, Received: 88,
		NoUpgrade: "PID 1 ends", Warnings: []string{"the sockets are of another namespace"},
		Sockets: []handoff.SocketStatus{
			{Name: "web", Kind: "listener", Network: "tcp", Address: "[::]:80", Queue: 1, Backlog: 4096, HalfOpen: 2, Accepted: 99},
			{Kind: "packet", Network: "udp", Address: "[::]:53", Queue: -1, Backlog: -1, HalfOpen: -1},
			{Name: "busy", Kind: "listener", Network: "unix", Address: "/run/api.sock", Queue: 100, Backlog: 128, HalfOpen: -1},
		},
		Lingering: []handoff.Process{{
			PID: 4000, Version: "1.4.1", Generation: 2, Open: 4, Moved: 5, Remaining: 90 * time.Second,
		}},
		Upgrades: []handoff.Report{
			{
				Generation: 3, Outcome: handoff.OutcomeFailed, Reason: "handoff: the successor died: exit status 3", Started: when.Add(-time.Hour),
				Predecessor: handoff.Process{PID: 4000, Version: "1.4.1"}, Successor: handoff.Process{PID: 4500},
				Queue: -1, HalfOpen: -1, Durations: handoff.Durations{Start: 12 * time.Millisecond, Total: 12 * time.Millisecond},
			},
			{
				Generation: 3, Mode: handoff.Takeover, Outcome: handoff.OutcomeCommitted, Started: when,
				Predecessor: handoff.Process{PID: 4000, Version: "1.4.1"}, Successor: handoff.Process{PID: 4711, Version: "1.4.2"},
				Warnings: []string{"the successor left out tcp 127.0.0.1:9090"}, Cut: 3, CutBy: map[string]uint64{"websocket": 1, "tracked": 2},
				Sockets: 3, Open: 21, Moved: 5, Durations: handoff.Durations{
					Start: 40 * time.Millisecond, Transfer: 3 * time.Millisecond, Warming: 1200 * time.Millisecond,
					Probation: 2 * time.Second, Commit: time.Millisecond, Total: 3244 * time.Millisecond,
				},
			},
		},
		Totals: &handoff.Totals{Committed: 2, RolledBack: 0, Failed: 1, Moved: 5},
	}
}

// ask does one request of a handler.
func ask(t *testing.T, h http.Handler, method, target string) (*http.Response, string) {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// TestPage looks for the facts, and for what keeps the page harmless.
func TestPage(t *testing.T) {
	t.Parallel()
	resp, body := ask(t, handoffdebug.Handler(serving()), http.MethodGet, handoffdebug.Path)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("GET %s: %s, %s", handoffdebug.Path, resp.Status, resp.Header.Get("Content-Type"))
	}
	for _, want := range []string{
		"<title>api: serving, generation 3</title>", `<html lang="en">`, "1.4.2", "4711", "26h30m", "[::]:80", "4096", "filling up",
		"within 1m30s", "→ pid 4500", "the successor died: exit status 3", "1.4.1 (pid 4000) → 1.4.2 (pid 4711)", "warming 1.2s", "took 3.24s",
		"<dt>Received</dt><dd>88</dd>", "<strong>Warning</strong>: the sockets are", "<strong>No upgrade can begin</strong>: PID 1 ends", "left out tcp 127.0.0.1:9090", "3 cut (2 tracked, 1 websocket)",
		"/usr/local/bin/api", "0123456789ab, go1.25.0", `href="status.json"`, `href="?refresh=5"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Index(body, "committed</span>") > strings.Index(body, "failed</span>") {
		t.Error("the oldest upgrade comes first, want the newest")
	}
	for _, not := range []string{"<script", "<form", "http-equiv", "An upgrade is under way", "ZgotmplZ"} {
		if strings.Contains(body, not) {
			t.Errorf("the page has %q", not)
		}
	}
	for head, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
	} {
		if got := resp.Header.Get(head); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", head, got, want)
		}
	}
}

// TestStored has a column for what systemd's store has, where it has anything.
func TestStored(t *testing.T) {
	t.Parallel()
	s := serving()
	if _, body := ask(t, handoffdebug.Handler(s), http.MethodGet, handoffdebug.Path); strings.Contains(body, "Stored") {
		t.Error("without a store the page has a column for it")
	}
	s.Sockets[0].Stored = true
	_, body := ask(t, handoffdebug.Handler(s), http.MethodGet, handoffdebug.Path)
	for _, want := range []string{">Stored</abbr></tr>", `>99<td data-of="Stored">yes</tr>`, `>–<td data-of="Stored">no</tr>`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

// TestFlows has a table of lanes where there are any.
func TestFlows(t *testing.T) {
	t.Parallel()
	s := serving()
	if _, body := ask(t, handoffdebug.Handler(s), http.MethodGet, handoffdebug.Path); strings.Contains(body, "Flows") {
		t.Error("without flows the page has a table of them")
	}
	s.Flows = []handoff.FlowStatus{{Network: "udp", Address: "[::]:443", Strategy: "lanes", Lanes: 3, Lane: 2, Current: 1, Used: []int{0, 1, 2}, Kept: 7}}
	_, body := ask(t, handoffdebug.Handler(s), http.MethodGet, handoffdebug.Path)
	for _, want := range []string{">Flows</h2>", "[::]:443", `data-of="Strategy">lanes`, `<td class="n bad" data-of="Used">3<td class="n" data-of="Lanes">3<td class="n" data-of="Kept">7</tr>`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

// TestUnderWay shows an upgrade that is not over, a process that ends, and a
// page that loads itself anew.
func TestUnderWay(t *testing.T) {
	t.Parallel()
	s := serving()
	s.State, s.Remaining, s.Totals, s.Upgrades = handoff.StateLingering, 30*time.Second, nil, nil
	s.Upgrade = &handoff.Event{Kind: handoff.EventWarming, Report: &handoff.Report{Successor: handoff.Process{PID: 5000, Version: "1.5"}}}
	_, body := ask(t, handoffdebug.Handler(s), http.MethodGet, handoffdebug.Path+"?refresh=7")
	for _, want := range []string{
		`<meta http-equiv="refresh" content="7">`, `href="?"`, "An upgrade is under way", "the successor prepares itself, to 1.5 (pid 5000)", "is cut in 30s", "None yet.",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(body, "Rolled back") {
		t.Error("the page has totals that are unknown")
	}
}

// TestHostile has names that want to be something else.
func TestHostile(t *testing.T) {
	t.Parallel()
	const evil = "<script>alert(1)</script>\"'`&{{.}}</style>\xff\x00"
	s := serving()
	s.Name, s.Version, s.Executable, s.Build = evil, evil, evil, evil
	s.Sockets[0] = handoff.SocketStatus{Name: evil, Kind: evil, Network: evil, Address: evil}
	s.Lingering[0].Version = evil
	s.Upgrades[0].Reason, s.Upgrades[0].Successor.Version, s.Upgrades[0].Outcome = evil, evil, handoff.Outcome(evil)
	s.State = handoff.State(evil)
	s.Upgrade = &handoff.Event{Kind: handoff.EventKind(evil)}
	h := handoffdebug.Handler(s)
	_, body := ask(t, h, http.MethodGet, handoffdebug.Path)
	if strings.Contains(body, "<script") || strings.Count(body, "</style>") != 1 {
		t.Errorf("a name came through:\n%s", body)
	}
	if !utf8.ValidString(body) {
		t.Error("the page is not valid UTF-8")
	}
	resp, body := ask(t, h, http.MethodGet, handoffdebug.Path+"status.json")
	if resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("JSON comes as %v: a browser may take it for a page", resp.Header)
	}
	if !json.Valid([]byte(body)) {
		t.Errorf("no JSON: %s", body)
	}
}

// TestJSON wants the Status back as it was.
func TestJSON(t *testing.T) {
	t.Parallel()
	_, body := ask(t, handoffdebug.Handler(serving()), http.MethodGet, handoffdebug.Path+"status.json")
	var got handoff.Status
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(handoff.Status(serving()), got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if strings.Count(body, "\n") != 1 || !strings.HasSuffix(body, "\n") {
		t.Errorf("JSON has %d lines, want one", strings.Count(body, "\n"))
	}
}

// TestRequests has requests of all kinds answered.
func TestRequests(t *testing.T) {
	t.Parallel()
	debug := handoffdebug.Handler(serving())
	mux := http.NewServeMux()
	mux.Handle(handoffdebug.Path, debug)
	mux.Handle("/admin/", http.StripPrefix("/admin", debug))
	for _, c := range []struct {
		method, target string
		want           int
	}{
		{http.MethodGet, "/debug/baton/", http.StatusOK},
		{http.MethodGet, "/debug/baton", http.StatusOK}, // by way of a redirect
		{http.MethodGet, "/debug/baton/status.json", http.StatusOK},
		{http.MethodGet, "/debug/baton/?refresh=0", http.StatusOK},
		{http.MethodGet, "/debug/baton/?refresh=3600", http.StatusOK},
		{http.MethodGet, "/debug/baton/?refresh=3601", http.StatusBadRequest},
		{http.MethodGet, "/debug/baton/?refresh=-1", http.StatusBadRequest},
		{http.MethodGet, "/debug/baton/?refresh=0%3Burl=//x", http.StatusBadRequest},
		{http.MethodGet, "/debug/baton/other", http.StatusNotFound},
		{http.MethodGet, "/debug/baton/status.json/", http.StatusNotFound},
		{http.MethodGet, "/admin/", http.StatusOK},
		{http.MethodGet, "/admin/status.json", http.StatusOK},
		{http.MethodGet, "/admin/x/status.json", http.StatusNotFound},
		{http.MethodHead, "/debug/baton/", http.StatusOK},
		{http.MethodHead, "/debug/baton/status.json", http.StatusOK},
		{http.MethodPost, "/debug/baton/", http.StatusMethodNotAllowed},
		{http.MethodPut, "/debug/baton/status.json", http.StatusMethodNotAllowed},
		{http.MethodDelete, "/debug/baton/", http.StatusMethodNotAllowed},
		{http.MethodOptions, "/debug/baton/", http.StatusMethodNotAllowed},
	} {
		resp, body := ask(t, mux, c.method, c.target)
		if resp.StatusCode != c.want {
			t.Errorf("%s %s: %s, want %d", c.method, c.target, resp.Status, c.want)
		}
		if allow := resp.Header.Get("Allow"); (allow == "GET, HEAD") != (c.want == http.StatusMethodNotAllowed) {
			t.Errorf("%s %s: Allow: %q", c.method, c.target, allow)
		}
		if c.method == http.MethodHead {
			if n, err := strconv.Atoi(resp.Header.Get("Content-Length")); err != nil || n < 100 || body != "" {
				t.Errorf("HEAD %s: %q, Content-Length %q", c.target, body, resp.Header.Get("Content-Length"))
			}
		}
	}
}
