// Package operate is the control socket of a service: where it is and which
// process serves it, the server that answers there, the events that it passes
// on, and what a tool and the server say to each other.
//
// A connection to the control socket begins with a message of package wire: the
// Hello of a successor, which goes to the service, or the Request of a tool. The
// bodies of Request and Response are the JSON of the types in message.go. A
// reader ignores members that it does not know and takes a missing one for its
// zero value, so members may be added at any time. Times are RFC 3339, durations
// are numbers of nanoseconds. Golden bodies are in testdata of package control.
//
// Package control, the client, imports this package for those types. It imports
// package handoff, and the server with it, in any case; a package of its own for
// them would save nothing.
package operate
