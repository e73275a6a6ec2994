package handoffprom_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffprom"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){"metrics": metricsMain})
}

// fixed is a Source that says always the same.
type fixed handoff.Status

func (f fixed) Status() handoff.Status { return handoff.Status(f) }

var when = time.Date(2026, time.July, 1, 12, 30, 0, 0, time.UTC)

var serving = fixed{
	Name: "api", Version: "1.1", Mode: handoff.Takeover, Generation: 3, State: handoff.StateServing,
	Open: 7,
	Sockets: []handoff.SocketStatus{
		{Name: "web", Kind: "listener", Network: "tcp", Address: "127.0.0.1:80", Queue: 1, Backlog: 128, HalfOpen: 2, Accepted: 10},
		{Name: "web", Kind: "listener", Network: "tcp", Address: "127.0.0.1:80", Queue: 2, Backlog: 128, HalfOpen: 2, Accepted: 20},
		{Name: "admin", Kind: "listener", Network: "tcp", Address: "127.0.0.1:80", Queue: 0, Backlog: 128, HalfOpen: 2, Accepted: 1},
		{Kind: "listener", Network: "unix", Address: "/run/\xff\n\"", Queue: -1, Backlog: -1, HalfOpen: -1, Accepted: 4},
		{Kind: "packet", Network: "udp", Address: "127.0.0.1:53", Queue: -1, Backlog: -1, HalfOpen: -1},
		{Name: "log", Kind: "file", Queue: -1, Backlog: -1, HalfOpen: -1},
	},
	Flows:     []handoff.FlowStatus{{Network: "udp", Address: "[::]:443", Lanes: 8, Lane: 2, Current: 2, Used: []int{1, 2}, Kept: 3}},
	Lingering: []handoff.Process{{Generation: 1, Open: 3}, {Generation: 2, Open: 4}},
	Upgrades: []handoff.Report{
		{Outcome: handoff.OutcomeFailed, Started: when.Add(-time.Hour)},
		{Outcome: handoff.OutcomeCommitted, Started: when, Durations: handoff.Durations{
			Start: time.Millisecond, Transfer: 2 * time.Millisecond, Warming: 3 * time.Second, Probation: 2 * time.Second,
			Commit: time.Millisecond, Total: 5004 * time.Millisecond,
		}},
	},
	Totals: &handoff.Totals{Committed: 2, RolledBack: 1, Failed: 4, Moved: 9, Cut: 5},
}

const servingText = `
# HELP baton_connections_cut_total Connections closed by force at a linger limit since the first generation.
# TYPE baton_connections_cut_total counter
baton_connections_cut_total 5
# HELP baton_connections_moved_total Connections passed to a successor since the first generation.
# TYPE baton_connections_moved_total counter
baton_connections_moved_total 9
# HELP baton_connections_open Connections of this process that are tracked or held.
# TYPE baton_connections_open gauge
baton_connections_open 7
# HELP baton_flow_lanes Lanes of an address with flows: processes that can have it at once.
# TYPE baton_flow_lanes gauge
baton_flow_lanes{address="[::]:443",network="udp"} 8
# HELP baton_flow_lanes_used Lanes that processes have.
# TYPE baton_flow_lanes_used gauge
baton_flow_lanes_used{address="[::]:443",network="udp"} 2
# HELP baton_flows_kept Flows without an ID that this process has.
# TYPE baton_flows_kept gauge
baton_flows_kept{address="[::]:443",network="udp"} 3
# HELP baton_generation Generation of the process; one more with each committed upgrade.
# TYPE baton_generation gauge
baton_generation 3
# HELP baton_info What the process is; always 1.
# TYPE baton_info gauge
baton_info{mode="takeover",name="api",version="1.1"} 1
# HELP baton_lingering_connections_open Open connections of lingering predecessors.
# TYPE baton_lingering_connections_open gauge
baton_lingering_connections_open 7
# HELP baton_lingering_predecessors Predecessors that still serve open connections.
# TYPE baton_lingering_predecessors gauge
baton_lingering_predecessors 2
# HELP baton_socket_accepted_total Connections that this process has accepted.
# TYPE baton_socket_accepted_total counter
baton_socket_accepted_total{address="/run/�\n\"",name="",network="unix"} 4
baton_socket_accepted_total{address="127.0.0.1:80",name="admin",network="tcp"} 1
baton_socket_accepted_total{address="127.0.0.1:80",name="web",network="tcp"} 30
# HELP baton_socket_backlog Limit of the connections that wait to be accepted.
# TYPE baton_socket_backlog gauge
baton_socket_backlog{address="127.0.0.1:80",name="admin",network="tcp"} 128
baton_socket_backlog{address="127.0.0.1:80",name="web",network="tcp"} 256
# HELP baton_socket_half_open Handshakes that are under way on an address.
# TYPE baton_socket_half_open gauge
baton_socket_half_open{address="127.0.0.1:80",network="tcp"} 2
# HELP baton_socket_queue_length Connections that wait to be accepted.
# TYPE baton_socket_queue_length gauge
baton_socket_queue_length{address="127.0.0.1:80",name="admin",network="tcp"} 0
baton_socket_queue_length{address="127.0.0.1:80",name="web",network="tcp"} 3
# HELP baton_sockets Sockets and files that go to a successor, by kind.
# TYPE baton_sockets gauge
baton_sockets{kind="file"} 1
baton_sockets{kind="listener"} 4
baton_sockets{kind="packet"} 1
# HELP baton_state 1 for the state that the process is in, else 0.
# TYPE baton_state gauge
baton_state{state="closed"} 0
baton_state{state="lingering"} 0
baton_state{state="serving"} 1
baton_state{state="starting"} 0
baton_state{state="stopping"} 0
# HELP baton_upgrade_duration_seconds Time that each phase of the last upgrade took.
# TYPE baton_upgrade_duration_seconds gauge
baton_upgrade_duration_seconds{phase="commit"} 0.001
baton_upgrade_duration_seconds{phase="probation"} 2
baton_upgrade_duration_seconds{phase="start"} 0.001
baton_upgrade_duration_seconds{phase="transfer"} 0.002
baton_upgrade_duration_seconds{phase="warming"} 3
# HELP baton_upgrade_last_successful 1 if the last upgrade was committed, else 0.
# TYPE baton_upgrade_last_successful gauge
baton_upgrade_last_successful 1
# HELP baton_upgrade_last_timestamp_seconds Unix time at which the last upgrade was committed, or had failed.
# TYPE baton_upgrade_last_timestamp_seconds gauge
baton_upgrade_last_timestamp_seconds 1.782909005004e+09
# HELP baton_upgrade_under_way 1 while an upgrade is under way, else 0.
# TYPE baton_upgrade_under_way gauge
baton_upgrade_under_way 0
# HELP baton_upgrades_total Upgrades since the first generation, by outcome.
# TYPE baton_upgrades_total counter
baton_upgrades_total{outcome="committed"} 2
baton_upgrades_total{outcome="failed"} 4
baton_upgrades_total{outcome="rolled-back"} 1
`

// TestCollector compares the whole exposition.
func TestCollector(t *testing.T) {
	t.Parallel()
	c := handoffprom.New(serving)
	if err := testutil.CollectAndCompare(c, strings.NewReader(servingText)); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestUnknown wants what is not known to be missing, not zero.
func TestUnknown(t *testing.T) {
	t.Parallel()
	c := handoffprom.New(fixed{State: handoff.StateStarting, Mode: handoff.Drain, Upgrade: &handoff.Event{}})
	for name, want := range map[string]int{
		"baton_upgrades_total": 0, "baton_connections_moved_total": 0, "baton_connections_cut_total": 0,
		"baton_upgrade_last_successful": 0, "baton_upgrade_duration_seconds": 0, "baton_socket_accepted_total": 0,
		"baton_state": 5, "baton_sockets": 3, "baton_connections_open": 1,
	} {
		if got := testutil.CollectAndCount(c, name); got != want {
			t.Errorf("%d series of %s, want %d", got, name, want)
		}
	}
	if err := testutil.CollectAndCompare(c, strings.NewReader(`
# HELP baton_upgrade_under_way 1 while an upgrade is under way, else 0.
# TYPE baton_upgrade_under_way gauge
baton_upgrade_under_way 1
`), "baton_upgrade_under_way"); err != nil {
		t.Error(err)
	}
}

// TestRegister registers two in one registry, told apart by a label, and finds
// what is collected to be what was described.
func TestRegister(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	for _, name := range []string{"a", "b"} {
		if err := prometheus.WrapRegistererWith(prometheus.Labels{"service": name}, reg).Register(handoffprom.New(serving)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}
