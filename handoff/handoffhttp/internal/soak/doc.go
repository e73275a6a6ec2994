// Soak replaces an HTTP service many times under load, in each mode, and the same
// service with http.Server.Shutdown as a control, and prints how many requests failed:
//
//	go run ./handoff/handoffhttp/internal/soak -upgrades 200
//
// Its last line is "result: upgrades=… requests=… failed=…". Its exit status is not 0
// if a request of Baton's failed, or if none of the control's did.
package main
