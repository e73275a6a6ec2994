package supervisor

import "errors"

// The conditions that a caller may want to branch on, by [errors.Is].
var (
	// ErrStart says that the app can't be started: its program is missing or not
	// executable.
	ErrStart = errors.New("the app can't be started")
	// ErrFailed says that the app ended with an error or was not ready in time and is
	// not restarted, or that the supervisor had to kill it at the end.
	ErrFailed = errors.New("the app has failed")
	// ErrListen says that a socket can't be bound.
	ErrListen = errors.New("a socket can't be bound")
	// ErrConfig says that a configuration is invalid.
	ErrConfig = errors.New("configuration")
)
