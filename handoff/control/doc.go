// Package control asks a running server at its control socket: what it is and
// how it goes, to replace itself by its next version, to take that back, to end.
// The command baton is made of it; a deploy tool can be as well.
//
//	c, err := control.New(&control.Config{Name: "api"})
//	...
//	report, err := c.Upgrade(ctx, nil) // nil: the new version has the sockets
//
// The server is any process that has called [handoff.New] with a Name or a
// ControlSocket; it answers by itself. It lets in root, processes of its own
// user, and whom its Config.Allow lets in.
//
// A [Client] holds no connection and no descriptor: each call dials, and closes
// what it has dialled before it returns. Its methods may be called from several
// goroutines. Hooks are called from the goroutine of the caller.
//
// It works on Linux. Elsewhere it builds, and each call returns an error that
// matches [errors.ErrUnsupported].
package control
