// Package tlspeers tests connections of package handofftls that move while clients of
// openssl, Python and Go use them, with each cipher suite: ChaCha20-Poly1305 is that of
// golang.org/x/crypto.
package tlspeers
