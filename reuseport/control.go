package reuseport

import "syscall"

// Control returns a function for the Control field of [net.ListenConfig] that puts each
// socket into the SO_REUSEPORT group of its address and then calls next, which may be
// nil. If the kernel refuses the option, Listen fails: each listener that it returns is a
// member.
//
// The caller has to do two things that a hook can't do: turn MPTCP off with
// [net.ListenConfig.SetMultipathTCP], because a group of MPTCP listeners can't be
// steered, and use only the networks tcp, tcp4, tcp6, udp, udp4 and udp6. [Listen] and
// [ListenPacket] do both. A listener of net.ListenConfig is a plain one: its Close, and
// http.Server.Shutdown, have the kernel reset what is in its queue. One that is to leave the
// group without loss is made by [Listen].
//
// The option is SO_REUSEPORT on Linux, SO_REUSEPORT_LB on FreeBSD, which spreads
// connections as Linux does, and SO_REUSEPORT on macOS and the other BSDs, where
// several sockets may share the port but nothing spreads the connections. On
// other systems the hook's error matches [errors.ErrUnsupported].
func Control(next func(network, address string, c syscall.RawConn) error) func(network, address string, c syscall.RawConn) error {
	return func(network, address string, c syscall.RawConn) error {
		var serr error
		if err := c.Control(func(fd uintptr) { serr = setReusePort(fd) }); err != nil {
			return err
		}
		if serr != nil {
			return serr
		}
		if next != nil {
			return next(network, address, c)
		}
		return nil
	}
}
