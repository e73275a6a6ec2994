//go:build !go1.26

package handofftls

import "crypto/tls"

// retried: the state has no such field before Go 1.26.
func retried(*tls.ConnectionState) bool { return false }

func setRetried(*tls.ConnectionState, bool) {}
