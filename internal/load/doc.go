// Package load drives a service during upgrades and counts the result of every single
// connection.
//
// It has both ends of a small protocol: a [Service] that a server puts behind
// its listeners, and [Run], the client. The client never retries: what fails is
// counted, by [Class]. It checks each answer, notes which version of the service
// gave it, and measures the longest time between two accepts.
//
// # Protocol
//
// On stream sockets the service speaks first. So the client knows that its connection
// was accepted, and by which process:
//
//	baton VERSION GENERATION PID
//
// It answers each line "VERB TOKEN" by "VERSION TOKEN more" or by "VERSION TOKEN last",
// and closes the connection after the last. The verb once asks a single question. keep
// asks one of many: the service answers until the client says bye, through any number
// of upgrades. next lets the service end the connection, which it does by a marked
// answer when its successor has taken over.
//
// A datagram TOKEN is answered by "VERSION TOKEN", and so is the body of an HTTP
// request.
//
// Functions may be called from several goroutines. The package builds
// everywhere.
package load
