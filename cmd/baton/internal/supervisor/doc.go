// Package supervisor runs an app as generations of one process each. It binds the app's
// sockets and passes them on (sd_listen_fds(3)). In an upgrade it starts the next
// generation beside the running one, and ends the old one when the new one is ready. It
// restarts the app when it dies. The supervisor keeps the sockets open all the time, so
// queued connections outlive any generation.
//
// It is no library for other programs: a [Supervisor] takes over its whole process. It
// waits for every child, is a subreaper (PR_SET_CHILD_SUBREAPER(2const)), and handles
// the process's signals. It also executes its own program again, which must call [Exec]
// where the first argument is [ExecArg].
//
// One goroutine, that of [Supervisor.Run], owns all state, starts all children and
// waits for them. A loop of wait4(-1) beside os/exec would steal exit statuses from it.
// And a process ID stays the app's from its start until that goroutine has waited for
// it.
//
// It works on Linux; elsewhere [New] returns an error that matches
// [errors.ErrUnsupported].
package supervisor
