// Package sockets has the sockets of a service: what a process accepts from or
// reads from, and hands on to its successor.
//
// A [Socket] is one descriptor with its entry in the manifest. Its gate lets
// Accept and reads through, holds them while a successor is in probation, or
// turns them away for good; nothing that was accepted is lost by that. A [Table]
// holds the sockets of a process and those that a predecessor has passed on, and
// finds the one that a [Key] asks for. A [Leaving] is a socket that another one on
// its address has replaced: what still comes out of it is returned by that one.
//
// The package knows neither the conversation with the other process nor which of the
// two serves: its caller opens and pauses the gates.
package sockets
