// Package operator holds what an operator's tool and a server say to each other
// at the control socket: the bodies of package wire's Request and Response, in
// JSON. It is pure.
//
// A reader ignores members that it doesn't know, and takes a missing one for its
// zero value, so that members may be added at any time. Golden bodies of each
// protocol version are in testdata of package control. Times are RFC 3339,
// durations numbers of nanoseconds.
package operator
