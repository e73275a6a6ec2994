package handoffprom_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/handoff/handoffprom"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// metricsMain is a generation of a service that serves its metrics at the address args[1].
// It joins the generation before at the control socket args[0].
func metricsMain(args []string) {
	err := func() error {
		up, err := handoff.New(&handoff.Config{ControlSocket: args[0], Probation: 100 * time.Millisecond})
		if err != nil {
			return err
		}
		metrics := prometheus.NewRegistry()
		metrics.MustRegister(handoffprom.New(up))
		ln, err := up.Listen(context.Background(), "tcp", args[1])
		if err != nil {
			return err
		}
		srv := &http.Server{Handler: promhttp.HandlerFor(metrics, promhttp.HandlerOpts{})}
		return handoffhttp.Run(context.Background(), up, srv, ln)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestPrometheus has a Prometheus scrape a service through upgrades: no scrape fails, no
// counter of the line goes back, and no series is there twice.
func TestPrometheus(t *testing.T) {
	testenv.Need(t, "prometheus")
	testenv.Long(t, "TestUpgrader")
	t.Parallel()
	const upgrades = 5
	dir := testenv.ShortDir(t)
	service, server := free(t), free(t)
	config := fmt.Sprintf(`{"global": {"scrape_interval": "200ms"}, "scrape_configs": [{"job_name": "api", "static_configs": [{"targets": [%q]}]}]}`, service)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func(cmd *exec.Cmd) {
		cmd.Stderr = t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()         // likewise
		})
	}
	generation := func() { start(testmain.Command(t, "metrics", filepath.Join(dir, "c", "s"), service)) }
	generation()
	awaitAnswer(t, service)
	start(exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+server, "--log.level=error"))
	awaitValue(t, server, `baton_generation`, "1")
	for i := range upgrades {
		generation()
		awaitValue(t, server, `baton_generation`, fmt.Sprint(i+2))
	}
	awaitValue(t, server, `baton_upgrades_total{outcome="committed"}`, fmt.Sprint(upgrades))
	for query, want := range map[string]string{
		`min(min_over_time(up[10m]))`:                              "1",
		`max(resets(baton_upgrades_total[10m]))`:                   "0",
		`max(resets(baton_connections_moved_total[10m]))`:          "0",
		`max(resets(baton_connections_cut_total[10m]))`:            "0",
		`count(count_over_time(baton_upgrades_total[10m]))`:        "3", // an outcome each
		`count(count_over_time(baton_socket_accepted_total[10m]))`: "1",
		`count(count_over_time(baton_generation[10m]))`:            "1",
	} {
		if got, err := value(server, query); got != want {
			t.Errorf("%s = %s, %v, want %s", query, got, err, want)
		}
	}
}

func free(tb testing.TB) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// awaitAnswer waits until a server accepts connections.
func awaitAnswer(tb testing.TB, address string) {
	tb.Helper()
	deadline := time.After(time.Minute)
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close() // nothing was written
			return
		}
		select {
		case <-deadline:
			tb.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// awaitValue waits until a query has a value.
func awaitValue(tb testing.TB, server, query, want string) {
	tb.Helper()
	deadline := time.After(time.Minute)
	for {
		got, err := value(server, query)
		if got == want {
			return
		}
		select {
		case <-deadline:
			tb.Fatalf("%s = %s, %v, want %s", query, got, err, want)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// value asks a Prometheus for the value of the only series that a query finds.
func value(server, query string) (string, error) {
	resp, err := http.Get("http://" + server + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", err
	}
	if len(answer.Data.Result) != 1 {
		return "", fmt.Errorf("%d series", len(answer.Data.Result))
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1]), nil
}
