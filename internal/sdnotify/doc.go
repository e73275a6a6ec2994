// Package sdnotify speaks systemd's notify protocol (sd_notify(3)): datagrams of
// assignments, a line each, to the socket that NOTIFY_SOCKET names, with
// descriptors where an assignment has some.
//
// A [Notifier] may be used from several goroutines. Without NOTIFY_SOCKET there
// is none: a nil Notifier does nothing, so that callers need not ask.
//
// It works on Linux; elsewhere [New] returns nil.
package sdnotify
