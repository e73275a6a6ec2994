// Package witness counts the requests that an HTTP/2 client without TLS sends to a service,
// and those of them that the service fails.
//
// A client's own count is of another kind: h2load takes a request for failed that it has
// not sent because of GOAWAY. A [Witness] stands between both, passes every byte on, and
// sees each frame.
package witness
