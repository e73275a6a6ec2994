// Package sdnotify speaks systemd's notify protocol (sd_notify(3)): datagrams of
// assignments, a line each, to the socket that NOTIFY_SOCKET names, with
// descriptors where an assignment has some.
//
// A [Notifier] sends at once, a [Queue] in order and without making its caller wait.
// Both may be used from several goroutines. Without NOTIFY_SOCKET there is neither: a
// nil Notifier or Queue does nothing, so that callers need not ask.
//
// It works on Linux; elsewhere [New] returns nil.
package sdnotify
