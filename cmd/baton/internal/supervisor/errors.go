package supervisor

import "errors"

// The conditions that a caller may want to branch on, by [errors.Is].
var (
	// ErrStart says that the app can't be started at all: it is missing, or no
	// program.
	ErrStart = errors.New("the app can't be started")
	// ErrFailed says that the app has ended with an error, or was not ready in
	// time, and is not started again; or that it had to be killed in the end.
	ErrFailed = errors.New("the app has failed")
	// ErrListen says that a socket can't be bound.
	ErrListen = errors.New("a socket can't be bound")
	// ErrConfig says that a configuration makes no sense.
	ErrConfig = errors.New("configuration")
)
