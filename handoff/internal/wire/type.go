package wire

import (
	"reflect"
	"strconv"
)

// messages has the struct of each type of message.
var messages = map[Type]reflect.Type{
	TypeHello:      reflect.TypeFor[Hello](),
	TypeWelcome:    reflect.TypeFor[Welcome](),
	TypeRefuse:     reflect.TypeFor[Refuse](),
	TypeSockets:    reflect.TypeFor[Sockets](),
	TypeStates:     reflect.TypeFor[States](),
	TypeAck:        reflect.TypeFor[Ack](),
	TypeVerified:   reflect.TypeFor[Verified](),
	TypeReady:      reflect.TypeFor[Ready](),
	TypePaused:     reflect.TypeFor[Paused](),
	TypePing:       reflect.TypeFor[Ping](),
	TypeAlive:      reflect.TypeFor[Alive](),
	TypeCommit:     reflect.TypeFor[Commit](),
	TypeCommitted:  reflect.TypeFor[Committed](),
	TypeAbort:      reflect.TypeFor[Abort](),
	TypeRollback:   reflect.TypeFor[Rollback](),
	TypeRolledBack: reflect.TypeFor[RolledBack](),
	TypeTook:       reflect.TypeFor[Took](),
	TypeConns:      reflect.TypeFor[Conns](),
	TypeLinger:     reflect.TypeFor[Linger](),
	TypeEndLinger:  reflect.TypeFor[EndLinger](),
	TypeBye:        reflect.TypeFor[Bye](),
	TypeAdopt:      reflect.TypeFor[Adopt](),
	TypeStderr:     reflect.TypeFor[Stderr](),
	TypeReleased:   reflect.TypeFor[Released](),
	TypeAccount:    reflect.TypeFor[Account](),
	TypeTaking:     reflect.TypeFor[Taking](),
	TypeRequest:    reflect.TypeFor[Request](),
	TypeResponse:   reflect.TypeFor[Response](),
}

// newMessage returns an empty message of type t, or nil.
func newMessage(t Type) Message {
	m, ok := messages[t]
	if !ok {
		return nil
	}
	return reflect.New(m).Interface().(Message)
}

// String returns the name of the message, or its number.
func (t Type) String() string {
	if m, ok := messages[t]; ok {
		return m.Name()
	}
	return "type " + strconv.Itoa(int(t))
}
