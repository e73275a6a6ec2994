// Package integration holds tests of Baton with what the library itself must not
// depend on: other servers, other clients, whole systems. It is a module of its
// own and has no code but tests, and the programs of make gauntlet, make systemd and others:
//
//	cd integration && go test ./...
package integration
