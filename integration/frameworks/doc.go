// Frameworks has a service for each framework in docs/frameworks.md, which shows where
// the framework takes a listener of package handoff, and what becomes of its connections
// in an upgrade. Tests upgrade each of them under clients that send nothing twice.
//
//	frameworks -control DIR/s -address 127.0.0.1:8080 gin
//
// serves gin until SIGTERM; SIGUSR2 replaces it by the program that is installed at its
// path by then. -h lists the names.
package main
