package wire

import (
	"reflect"
	"strconv"
)

// messages has the struct of each type of message.
var messages = structs(
	&Hello{}, &Welcome{}, &Refuse{}, &Sockets{}, &States{}, &Ack{}, &Verified{}, &Ready{}, &Paused{}, &Ping{}, &Alive{},
	&Commit{}, &Committed{}, &Abort{}, &Rollback{}, &RolledBack{}, &Took{}, &Conns{}, &Linger{}, &EndLinger{}, &Bye{},
	&Adopt{}, &Stderr{}, &Released{}, &Account{}, &Taking{}, &Request{}, &Response{},
)

func structs(all ...Message) map[Type]*structure {
	byType := make(map[Type]*structure)
	for _, m := range all {
		byType[m.Type()] = structureOf(reflect.TypeOf(m).Elem())
	}
	return byType
}

// String returns the name of the message, or its number.
func (t Type) String() string {
	if s, ok := messages[t]; ok {
		return s.of.Name()
	}
	return "type " + strconv.Itoa(int(t))
}
