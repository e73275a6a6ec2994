// Soak replaces an HTTP service many times under load, in each mode,
// beside the same service with http.Server.Shutdown, and tells how many requests
// failed:
//
//	go run ./handoff/handoffhttp/internal/soak -upgrades 200
//
// Its last line is "result: upgrades=… requests=… failed=…", and its exit status
// is non-zero if a request of Baton's has failed or if the control has failed
// none.
package main
