// Package control sends requests to the control socket of a running server: for its
// status and events, for an upgrade to its next version, a rollback, a graceful end.
// The command baton is built on it; a deploy tool can be as well.
//
//	c, err := control.New(&control.Config{Name: "api"})
//	...
//	report, err := c.Upgrade(ctx, nil) // nil: the new version has the sockets
//
// The server is any process that has called [handoff.New] with a Name or a
// ControlSocket; the program needs no code for it. The server answers root, processes of
// its own user, and those that its Config.Allow allows.
//
// A [Client] holds no connection and no descriptor: each call dials, and closes
// what it has dialled before it returns. Its methods may be called from several
// goroutines. Hooks are called from the goroutine of the caller.
//
// The package works on Linux. On other systems it builds, and each call returns an error
// that matches [errors.ErrUnsupported].
package control
