package handoffdebug

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // page.html, page.css
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// Path is the path at which to register a Handler. The Handler removes it from the path of
// a request that begins with it.
const Path = "/debug/baton/"

// maxRefresh is the longest time between two looks, in seconds.
const maxRefresh = 3600

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string
)

// A Source has the status that a Handler shows. A [handoff.Upgrader] is one.
type Source interface {
	// Status is called once by each request.
	Status() handoff.Status
}

type handler struct {
	source Source
	page   *template.Template
	policy string // Content-Security-Policy
}

// Handler returns a handler that shows what source knows. It may serve several
// requests at once, if the Source's method may be called so.
func Handler(source Source) http.Handler {
	sum := sha256.Sum256([]byte(pageStyle))
	return &handler{
		source: source,
		page: template.Must(template.New("page").Funcs(template.FuncMap{
			"style": func() template.CSS { return template.CSS(pageStyle) }, // ours
		}).Parse(pageText)), // ours, too
		policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}
}

// ServeHTTP answers with the page or with JSON.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		http.Error(w, "there is nothing to change here: GET and HEAD only", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, strings.TrimSuffix(Path, "/"))
	switch strings.TrimPrefix(name, "/") {
	case "":
		h.servePage(w, r)
	case "status.json":
		h.serveJSON(w)
	default:
		http.Error(w, "not here: the page is at "+Path+", the JSON at "+Path+"status.json", http.StatusNotFound)
	}
}

func (h *handler) servePage(w http.ResponseWriter, r *http.Request) {
	refresh := 0
	if text := r.URL.Query().Get("refresh"); text != "" {
		var err error
		if refresh, err = strconv.Atoi(text); err != nil || refresh < 0 || refresh > maxRefresh {
			http.Error(w, fmt.Sprintf("refresh: a number of seconds up to %d", maxRefresh), http.StatusBadRequest)
			return
		}
	}
	s := h.source.Status()
	var b bytes.Buffer
	if err := h.page.Execute(&b, newView(&s, time.Now(), refresh)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	head := w.Header()
	head.Set("Content-Type", "text/html; charset=utf-8")
	head.Set("Content-Security-Policy", h.policy)
	head.Set("Referrer-Policy", "no-referrer")
	// An address may be any bytes, a page may not.
	send(w, bytes.ToValidUTF8(b.Bytes(), []byte("\uFFFD")))
}

func (h *handler) serveJSON(w http.ResponseWriter) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(h.source.Status()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	send(w, b.Bytes())
}

func send(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client may have disconnected
}
