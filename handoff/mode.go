package handoff

import "fmt"

// Mode says how a successor gets its sockets. The zero Mode is Takeover where
// [Config] has a Name or a ControlSocket, and Inherit otherwise.
type Mode int

const (
	// Inherit has the predecessor start its successor, which inherits the
	// sockets (fork and exec, by way of tableflip: a service on plain tableflip
	// can be upgraded to Inherit in place, and back). What a successor writes to
	// its standard error before it calls New is not in the error of a failed
	// upgrade, see [UpgradeError].
	Inherit Mode = 1 + iota
	// Takeover passes the sockets over a unix socket (SCM_RIGHTS), to a
	// successor that the predecessor starts, or to any other process that is
	// started with the same control socket.
	Takeover
	// Drain has the successor bind TCP and UDP sockets of its own in the same
	// SO_REUSEPORT groups, while the predecessor leaves them without loss. All
	// else goes as in Takeover, whose two ways to start a successor it shares.
	// Several independent services, of one user, can be on one address: an
	// upgrade of one leaves the others alone.
	//
	// A TCP socket listens from Ready on, in the first process too, so a start
	// that is slow, or fails, never holds a connection. A UDP socket of a
	// successor is bound at Ready. MPTCP is off: the kernel can't steer it.
	//
	// The groups are left to the kernel's own choice (reuseport's Hash) but while
	// somebody leaves them. A process that is killed while it leaves can't put
	// that back; the first process of a line does it at Ready, and each upgrade.
	Drain
)

// String returns "inherit", "takeover", "drain" or, for the zero Mode, "default".
func (m Mode) String() string {
	switch m {
	case 0:
		return "default"
	case Inherit:
		return "inherit"
	case Takeover:
		return "takeover"
	case Drain:
		return "drain"
	}
	return fmt.Sprintf("mode(%d)", int(m))
}

// MarshalText encodes the mode as [Mode.String] does.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText decodes what MarshalText wrote.
func (m *Mode) UnmarshalText(text []byte) error {
	for _, k := range []Mode{0, Inherit, Takeover, Drain} {
		if k.String() == string(text) {
			*m = k
			return nil
		}
	}
	return fmt.Errorf("handoff: unknown mode %q: inherit, takeover or drain", text)
}
