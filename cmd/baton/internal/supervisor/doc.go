// Package supervisor runs an app as generations of one process each: it binds the
// app's sockets and passes them on (sd_listen_fds(3)), starts the next generation
// beside the last one, ends that when the new one is ready, and starts the app
// again when it dies. The sockets stay its own all the time, so that what waits
// in them outlives any generation.
//
// It is no library for other programs: a [Supervisor] takes over its whole
// process. It waits for every child, is a subreaper (PR_SET_CHILD_SUBREAPER(2const)),
// handles the process's signals, and has its own program executed again, which
// must call [Exec] where the first argument is [ExecArg].
//
// One goroutine, that of [Supervisor.Run], owns all state, starts all children and
// waits for them. So no other goroutine takes an exit status away, as a loop of wait4(-1)
// beside os/exec does, and a process ID stays the
// app's from its start until that goroutine has waited for it.
//
// It works on Linux; elsewhere [New] returns an error that matches
// [errors.ErrUnsupported].
package supervisor
