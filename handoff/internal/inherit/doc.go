// Package inherit is tableflip behind a small API: the engine of mode Inherit. It
// starts the successor, and lets it inherit the sockets and one end of a
// conversation, which adds what tableflip leaves out. No other package imports
// tableflip.
//
// tableflip's environment protocol is kept, so that a plain tableflip service can be
// upgraded in place to one of Baton, and back: a socket that plain tableflip knows
// goes under the name that it has there.
package inherit
