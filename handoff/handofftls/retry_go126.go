//go:build go1.26

package handofftls

import "crypto/tls"

// retried reports whether the server asked for a second hello.
func retried(st *tls.ConnectionState) bool { return st.HelloRetryRequest }

func setRetried(st *tls.ConnectionState, yes bool) { st.HelloRetryRequest = yes }
