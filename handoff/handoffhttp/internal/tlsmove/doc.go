// Tlsmove replaces an HTTPS service many times in each mode, under clients that keep their
// TLS connections and never send a request again: Go, Python, curl and openssl, each in
// processes of its own.
//
//	go run ./handoff/handoffhttp/internal/tlsmove -upgrades 200
//
// Its last line is "result: upgrades=… moves=… requests=… failed=… wrong=… handshakes=…
// connections=…". The service counts handshakes, and the clients connections. The exit
// status is not 0 if a request failed, or had another body than was sent, or if there were
// more handshakes than connections.
package main
