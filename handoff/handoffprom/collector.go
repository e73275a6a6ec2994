package handoffprom

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-11c92bf9/baton/handoff"
)

// A Source has the status that a Collector exports. A [handoff.Upgrader] is one.
type Source interface {
	// Status is called once by each scrape.
	Status() handoff.Status
}

// A Collector is a [prometheus.Collector]. Its methods may be called from
// several goroutines, if the Source's may.
type Collector struct {
	source Source
	descs  descs
}

var _ prometheus.Collector = (*Collector)(nil)

// New returns a Collector that exports the status of source. It does not register it.
func New(source Source) *Collector {
	return &Collector{source: source, descs: newDescs()}
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs.all() {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s := c.source.Status()
	d := &c.descs
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, valid(labels)...)
	}
	counter := func(desc *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(v), valid(labels)...)
	}
	gauge(d.info, 1, s.Name, s.Version, string(s.Mode))
	for _, state := range []handoff.State{
		handoff.StateStarting, handoff.StateServing, handoff.StateLingering, handoff.StateStopping, handoff.StateClosed,
	} {
		gauge(d.state, truth(s.State == state), string(state))
	}
	gauge(d.generation, float64(s.Generation))

	gauge(d.underWay, truth(s.Upgrade != nil))
	if t := s.Totals; t != nil {
		counter(d.upgrades, t.Committed, string(handoff.OutcomeCommitted))
		counter(d.upgrades, t.RolledBack, string(handoff.OutcomeRolledBack))
		counter(d.upgrades, t.Failed, string(handoff.OutcomeFailed))
		counter(d.moved, t.Moved)
		counter(d.cut, t.Cut)
	}
	if n := len(s.Upgrades); n > 0 {
		last := &s.Upgrades[n-1]
		gauge(d.successful, truth(last.Outcome == handoff.OutcomeCommitted))
		gauge(d.timestamp, float64(last.Started.Add(last.Durations.Total).UnixMilli())/1000)
		for _, p := range phases(&last.Durations) {
			if p.took > 0 {
				gauge(d.duration, p.took.Seconds(), p.name)
			}
		}
	}

	for kind, n := range kinds(s.Sockets) {
		gauge(d.sockets, float64(n), kind)
	}
	for at, sum := range sums(s.Sockets) {
		counter(d.accepted, sum.accepted, at.name, at.network, at.address)
		if sum.queue >= 0 {
			gauge(d.queue, float64(sum.queue), at.name, at.network, at.address)
		}
		if sum.backlog >= 0 {
			gauge(d.backlog, float64(sum.backlog), at.name, at.network, at.address)
		}
	}
	for at, n := range halfOpen(s.Sockets) {
		gauge(d.halfOpen, float64(n), at.network, at.address)
	}

	for _, f := range s.Flows {
		gauge(d.lanes, float64(f.Lanes), f.Network, f.Address)
		gauge(d.lanesUsed, float64(len(f.Used)), f.Network, f.Address)
		gauge(d.flowsKept, float64(f.Kept), f.Network, f.Address)
	}

	gauge(d.open, float64(s.Open))
	gauge(d.lingering, float64(len(s.Lingering)))
	var open uint64
	for _, p := range s.Lingering {
		open += p.Open
	}
	gauge(d.lingeringOpen, float64(open))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// valid makes labels what Prometheus takes: the path of a unix socket may be any
// bytes.
func valid(labels []string) []string {
	for i, label := range labels {
		labels[i] = text(label)
	}
	return labels
}

func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
