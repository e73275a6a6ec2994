package wire

// Limits of one message, in bytes where not said otherwise. Both sides keep to
// them: [Check] before a message is sent, [Decode] when it arrives.
const (
	MaxPayload   = 1 << 20          // payload of a frame
	MaxEntries   = 253              // entries of a list: descriptors in a frame, SCM_MAX_FD of unix(7)
	MaxName      = 255              // name of a socket, a file, a state or a kind of connection
	MaxNetwork   = 32               // network, such as "tcp4"
	MaxAddress   = 512              // address in text form
	MaxSockname  = 128              // sockaddr_storage
	MaxBuild     = 255              // build of a program; longer ones are cut when sent
	MaxText      = 4096             // text for people; longer ones are cut when sent
	MaxConnState = 64 << 10         // state that moves with one connection
	MaxOp        = 64               // name of an operator's request
	MaxBody      = MaxPayload - 128 // body of an operator's request or its response

	// EntryOverhead bounds what one [Conn] takes in a payload beside its name
	// and its state: a sender of [Conns] adds it to stay within MaxPayload. All other messages fit by their own limits.
	EntryOverhead = 16
)
