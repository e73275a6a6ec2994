// Package stateblob has the state that a service passes to its successor beside its
// sockets: [Providers] write it in the predecessor, [Received] holds it in the successor.
package stateblob
