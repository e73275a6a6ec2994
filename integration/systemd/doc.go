// Systemd shows a service on package handoff under a real systemd: it boots one
// (package internal/machine), installs the unit files of cmd/baton/systemd in it,
// upgrades the service through systemctl reload and crashes it by SIGKILL, while
// clients in another process send requests that nobody sends twice:
//
//	systemd -baton bin/baton -upgrades 20 -crashes 5
//
// A request may fail only if a process that was killed had it. That is proved, not
// assumed: each process of the service notes each connection that it gets, and
// that it lets go, before it does anything else with it, in a file that outlives
// it. A client that fails looks for its connection there. What is not found was
// lost, but for one connection for each listener and crash at most: a process can
// be killed between taking a connection from the kernel and noting it.
//
// The last line is "result: upgrades=… crashes=… requests=… failed=… refused=…",
// where failed does not count what was in flight in a killed process: the table
// does. The exit status is not 0 if anything failed or was refused.
package main
