// Gauntlet upgrades a service again and again, in each mode, under clients that
// never retry, while faults befall both processes, and proves that no request
// was lost:
//
//	gauntlet -restarts 200 -duration 10m -seed 1
//
// Three kinds of processes take part, all of this program. The service has
// listeners for raw TCP, TCP with a deferred accept, TLS, HTTP/1, HTTP/2, gRPC,
// WebSocket, unix, unixpacket, unixgram and UDP. The clients use them, on the
// same host and, where there is root, over a link with a delay; each request has
// a number that is sent once. The driver starts them, upgrades, and does harm.
//
// # The proof
//
// Each process of the service notes each connection that it gets and each number
// that it answers in a ledger, before it answers; each client notes for each
// number what came of it and which process answered. Both ledgers are written
// by one write(2) a record, so that they outlive the processes. The driver
// compares them: a number has to be answered once, by the process that the
// client has heard of. What was not is lost, unless
//
//   - the ledger says that the process which had the connection is one that was
//     killed ("died with its process");
//   - a process was killed between taking a connection from the kernel and noting
//     it: one for each of its listeners at most, and as many of those that move as
//     its predecessor says that it has passed on ("in its hand");
//   - all processes were dead, by the table of deaths of package handoff's
//     design, until the driver, as their supervisor, had started another, or one
//     that it had started by hand had become the first of its line
//     ("nobody to serve").
//
// After each round nothing may be left but the process that serves: no other
// process, no file, no descriptor beyond those that there were at first. A
// fault counts as survived only if it is known to have happened.
//
// The last line is "result: upgrades=… requests=… faults=… lost=…"; the exit
// status is not 0 if something was lost or left. A seed gives the same faults in
// the same order; the machine's timing is its own.
//
// What -out has written of several runs is summed up in a report, as report.md is. The
// files need not be kept: a seed, at the revision that the report names, gives the run
// again.
//
//	gauntlet -sum *.json >report.md
package main
