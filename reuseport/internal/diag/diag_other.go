//go:build !linux

package diag

import "errors"

// Conn is not supported here.
type Conn struct{}

// Dial is not supported here.
func Dial() (*Conn, error) { return nil, errors.ErrUnsupported }
