package diag

// What reads the kernel's answers.
var (
	ParseTuple     = parseTuple
	ParseSocket    = parseSocket
	ParseUnixQueue = parseUnixQueue
)
