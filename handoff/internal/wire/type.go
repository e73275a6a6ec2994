package wire

import "strconv"

// newMessage returns an empty message of type t, or nil.
func newMessage(t Type) Message {
	switch t {
	case TypeHello:
		return new(Hello)
	case TypeWelcome:
		return new(Welcome)
	case TypeRefuse:
		return new(Refuse)
	case TypeSockets:
		return new(Sockets)
	case TypeStates:
		return new(States)
	case TypeAck:
		return new(Ack)
	case TypeVerified:
		return new(Verified)
	case TypeReady:
		return new(Ready)
	case TypePaused:
		return new(Paused)
	case TypePing:
		return new(Ping)
	case TypeAlive:
		return new(Alive)
	case TypeCommit:
		return new(Commit)
	case TypeCommitted:
		return new(Committed)
	case TypeAbort:
		return new(Abort)
	case TypeRollback:
		return new(Rollback)
	case TypeRolledBack:
		return new(RolledBack)
	case TypeTook:
		return new(Took)
	case TypeConns:
		return new(Conns)
	case TypeLinger:
		return new(Linger)
	case TypeEndLinger:
		return new(EndLinger)
	case TypeBye:
		return new(Bye)
	case TypeAdopt:
		return new(Adopt)
	case TypeStderr:
		return new(Stderr)
	case TypeReleased:
		return new(Released)
	case TypeAccount:
		return new(Account)
	case TypeTaking:
		return new(Taking)
	case TypeRequest:
		return new(Request)
	case TypeResponse:
		return new(Response)
	}
	return nil
}

// String returns the name of the message, or its number.
func (t Type) String() string {
	switch t {
	case TypeHello:
		return "Hello"
	case TypeWelcome:
		return "Welcome"
	case TypeRefuse:
		return "Refuse"
	case TypeSockets:
		return "Sockets"
	case TypeStates:
		return "States"
	case TypeAck:
		return "Ack"
	case TypeVerified:
		return "Verified"
	case TypeReady:
		return "Ready"
	case TypePaused:
		return "Paused"
	case TypePing:
		return "Ping"
	case TypeAlive:
		return "Alive"
	case TypeCommit:
		return "Commit"
	case TypeCommitted:
		return "Committed"
	case TypeAbort:
		return "Abort"
	case TypeRollback:
		return "Rollback"
	case TypeRolledBack:
		return "RolledBack"
	case TypeTook:
		return "Took"
	case TypeConns:
		return "Conns"
	case TypeLinger:
		return "Linger"
	case TypeEndLinger:
		return "EndLinger"
	case TypeBye:
		return "Bye"
	case TypeAdopt:
		return "Adopt"
	case TypeStderr:
		return "Stderr"
	case TypeReleased:
		return "Released"
	case TypeAccount:
		return "Account"
	case TypeTaking:
		return "Taking"
	case TypeRequest:
		return "Request"
	case TypeResponse:
		return "Response"
	}
	return "type " + strconv.Itoa(int(t))
}
