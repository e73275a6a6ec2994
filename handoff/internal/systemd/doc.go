// Package systemd is what a process has to do with systemd: the messages about the
// service (sd_notify(3)), the descriptor store, and the sockets that systemd passes
// on when it starts the process (sd_listen_fds(3)).
//
// The process that serves has systemd store its sockets, so that they outlive it
// with everything that waits in them: after a crash, or a restart of the service,
// the next process gets them. While an upgrade is under way the store stays as it
// is; the process that serves afterwards brings it up to date.
//
// A [Manager] sends what it has to say in one order, from one goroutine, which also
// owns what is known of the store: messages, changes of the store and the waits for
// systemd never overtake each other. No method but [Manager.Reloading],
// [Manager.MakeRoom] and [Manager.Close] waits for systemd.
package systemd
