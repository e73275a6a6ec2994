// Package systemd is what a process has to do with systemd: the messages about the
// service (sd_notify(3)), the descriptor store, and the sockets that systemd passes
// on when it starts the process (sd_listen_fds(3)).
//
// The process that serves has systemd store its sockets, so that they outlive it
// with everything that waits in them: after a crash, or a restart of the service,
// the next process gets them. While an upgrade is under way the store stays as it
// is; the process that serves afterwards brings it up to date.
//
// A [Manager] is called where something happens in the life of the process. Its queue
// has messages, changes of the store and the waits for systemd in one order; one
// goroutine takes them from there, and owns what is known of the store. Only
// [Manager.UpgradeStarted], [Manager.MakeRoom] and [Manager.Close] wait for it.
package systemd
