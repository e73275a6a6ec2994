// Package handoffprom exports [handoff.Upgrader.Status] to Prometheus.
//
//	prometheus.MustRegister(handoffprom.New(up))
//
// A scrape asks the Upgrader once, and the Upgrader asks the kernel about its
// listeners. Nothing runs between scrapes.
//
// # Metrics
//
//	baton_info{name,version,mode}                  1
//	baton_state{state}                             1 for the state the process is in, else 0
//	baton_generation                               of this process
//	baton_upgrades_total{outcome}                  committed, rolled-back, failed
//	baton_upgrade_under_way                        1 while one is
//	baton_upgrade_last_successful                  1 if the last one was committed, else 0
//	baton_upgrade_last_timestamp_seconds           when the last one was committed, or had failed
//	baton_upgrade_duration_seconds{phase}          of the last one: start, transfer, warming, probation, commit, linger
//	baton_sockets{kind}                            listener, packet, file
//	baton_socket_accepted_total{name,network,address}
//	baton_socket_queue_length{name,network,address}
//	baton_socket_backlog{name,network,address}
//	baton_socket_half_open{network,address}
//	baton_flow_lanes{network,address}              of [handoff.Upgrader.ListenFlows]
//	baton_flow_lanes_used{network,address}         by processes; with all used, no upgrade can begin
//	baton_flows_kept{network,address}              by this process, see [handoff.Flows.Keep]
//	baton_connections_open                         open now: see handoff.Status
//	baton_connections_moved_total                  passed to a successor
//	baton_connections_cut_total                    closed by force
//	baton_lingering_predecessors
//	baton_lingering_connections_open               of all of them
//
// Upgrades and connections that were moved or cut are counted over all generations, see
// [handoff.Totals]: a process is no longer scraped after the upgrade that it has
// counted. These series are missing, and not zero, while a successor is in probation.
// Accepted connections are those of the process; the counter begins at zero in the next
// one, as after any restart. Unknown values are missing. Sockets with the same labels
// are added up.
//
// A service with thousands of sockets has thousands of series, and may want to
// drop some in its scrape configuration.
//
// For a process with several Upgraders, register each with
// [prometheus.WrapRegistererWith] and a label that tells them apart.
//
// It is a module of its own, so that a program without it does not have
// github.com/prometheus/client_golang among the requirements of its module.
package handoffprom
