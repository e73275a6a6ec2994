// Systemd shows a service on package handoff under a real systemd: it boots one
// (package internal/machine), installs the unit files of cmd/baton/systemd in it,
// upgrades the service through systemctl reload and crashes it by SIGKILL, while
// clients in another process send requests without retries:
//
//	systemd -baton bin/baton -upgrades 20 -crashes 5
//
// A request may fail only if a killed process had it. The ledgers prove that: each
// process of the service records each connection when it gets it and when it lets it
// go, before it does anything else with it, in a file that outlives it. The driver
// looks up the connection of each failed request there. A connection that is not found
// was lost, but for one for each listener and crash: a process can be killed between
// accepting a connection and recording it.
//
// The last line is "result: upgrades=… crashes=… requests=… failed=… refused=…",
// where failed does not count what was in flight in a killed process: the table
// does. The exit status is not 0 if anything failed or was refused.
package main
