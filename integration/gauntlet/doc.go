// Gauntlet upgrades a service again and again, in each mode, under clients that never
// retry. It injects faults into both processes, and proves that no request was lost:
//
//	gauntlet -restarts 200 -duration 10m -seed 1
//
// Three kinds of processes take part, all of this program. The service has
// listeners for raw TCP, TCP with a deferred accept, TLS, HTTP/1, HTTP/2, gRPC,
// WebSocket, unix, unixpacket, unixgram and UDP. The clients use them, on the
// same host and, where there is root, over a link with a delay; each request has
// a number that is sent once. The driver starts them, upgrades, and does harm.
//
// Among the faults are system calls that fail once: the driver answers those of a part of
// the processes (-filtered), as package internal/sysfault does it. Others are wrappers, which start the
// successor as a child, a control socket that is removed, another service that has the
// same control socket, and an upgrade while a successor that was rolled back still
// serves its connections.
//
// # The proof
//
// Each process of the service writes a ledger: each connection that it gets, and each
// number that it answers, before it answers. Each client writes another: for each
// number, the result and the process that answered. A record is one write(2), so the
// ledgers outlive the processes. The driver compares them: a number must be answered
// once, by the process that the client names. Otherwise the request is lost, unless
//
//   - the ledger says that the process with the connection was killed ("died with
//     its process");
//   - a process was killed between accepting a connection and recording it: at most
//     one for each of its listeners, and as many moving connections as its
//     predecessor says it has passed on ("in its hand");
//   - all processes were dead, by the table of deaths in package handoff's design,
//     until the driver, as their supervisor, had started another, or one that it had
//     started by hand had become the first of its line ("no process to serve").
//
// After each round only the serving process may be left: no other process, no file, no
// descriptor that was not there at first. A fault counts as survived only if it is
// known to have happened.
//
// The last line is "result: upgrades=… requests=… faults=… lost=…". The exit status is
// not 0 if a request was lost or anything was left. A seed repeats the faults and their
// order, but not the machine's timing.
//
// -sum writes a report about the results of several runs (-out), such as report.md. The
// results need not be kept: a seed repeats its run at the revision that the report
// names.
//
//	gauntlet -sum *.json >report.md
package main
