package handoffprom

import "github.com/prometheus/client_golang/prometheus"

// descs describe the metrics.
type descs struct {
	info, state, generation *prometheus.Desc

	upgrades, underWay, successful, timestamp, duration *prometheus.Desc

	sockets, accepted, queue, backlog, halfOpen *prometheus.Desc

	lanes, lanesUsed, flowsKept *prometheus.Desc

	open, moved, cut, lingering, lingeringOpen *prometheus.Desc
}

func newDescs() descs {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("baton_"+name, help, labels, nil)
	}
	return descs{
		info:       desc("info", "What the process is; always 1.", "name", "version", "mode"),
		state:      desc("state", "1 for the state that the process is in, else 0.", "state"),
		generation: desc("generation", "Generation of the process; one more with each committed upgrade."),

		upgrades:   desc("upgrades_total", "Upgrades since the first generation, by outcome.", "outcome"),
		underWay:   desc("upgrade_under_way", "1 while an upgrade is under way, else 0."),
		successful: desc("upgrade_last_successful", "1 if the last upgrade was committed, else 0."),
		timestamp:  desc("upgrade_last_timestamp_seconds", "Unix time at which the last upgrade was committed, or had failed."),
		duration:   desc("upgrade_duration_seconds", "Time that each phase of the last upgrade took.", "phase"),

		sockets:  desc("sockets", "Sockets and files that go to a successor, by kind.", "kind"),
		accepted: desc("socket_accepted_total", "Connections that this process has accepted.", "name", "network", "address"),
		queue:    desc("socket_queue_length", "Connections that wait to be accepted.", "name", "network", "address"),
		backlog:  desc("socket_backlog", "Limit of the connections that wait to be accepted.", "name", "network", "address"),
		halfOpen: desc("socket_half_open", "Handshakes that are under way on an address.", "network", "address"),

		lanes:     desc("flow_lanes", "Lanes of an address with flows: processes that can have it at once.", "network", "address"),
		lanesUsed: desc("flow_lanes_used", "Lanes that processes have.", "network", "address"),
		flowsKept: desc("flows_kept", "Flows without an ID that this process has.", "network", "address"),

		open:          desc("connections_open", "Connections of this process that are tracked or held."),
		moved:         desc("connections_moved_total", "Connections passed to a successor since the first generation."),
		cut:           desc("connections_cut_total", "Connections closed by force at a linger limit since the first generation."),
		lingering:     desc("lingering_predecessors", "Predecessors that still serve open connections."),
		lingeringOpen: desc("lingering_connections_open", "Open connections of lingering predecessors."),
	}
}

func (d *descs) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		d.info, d.state, d.generation,
		d.upgrades, d.underWay, d.successful, d.timestamp, d.duration,
		d.sockets, d.accepted, d.queue, d.backlog, d.halfOpen,
		d.lanes, d.lanesUsed, d.flowsKept,
		d.open, d.moved, d.cut, d.lingering, d.lingeringOpen,
	}
}
