package main

// The listeners of the service.
const (
	lnLines      = "lines"    // the protocol of package load on TCP
	lnDeferred   = "deferred" // the same with TCP_DEFER_ACCEPT
	lnUnix       = "unix"
	lnUnixpacket = "unixpacket"
	lnHTTP       = "http"
	lnTLS        = "tls" // HTTP/1 and HTTP/2
	lnGRPC       = "grpc"
	lnUDP        = "udp"
	lnUnixgram   = "unixgram"
)

// listeners are all of them, in the order in which they are opened.
func listeners() []string {
	return []string{lnLines, lnDeferred, lnUnix, lnUnixpacket, lnHTTP, lnTLS, lnGRPC, lnUDP, lnUnixgram}
}

// A kind is a way to be a client.
type kind struct {
	name     kindName
	listener string
	near     int  // clients on the same host
	far      int  // clients behind the link with a delay
	library  bool // which has the connections, and makes new ones as it likes
}

type kindName string

// kinds are all of them. A ledger has their indexes.
func kinds() []kind {
	return []kind{
		{"tcp, short", lnLines, 3, 6, false},
		{"tcp, long", lnLines, 2, 2, false},
		{"tcp, silent at first", lnLines, 2, 0, false},
		{"tcp, deferred accept", lnDeferred, 3, 4, false},
		{"unix, short", lnUnix, 2, 0, false},
		{"unix, long", lnUnix, 1, 0, false},
		{"unixpacket", lnUnixpacket, 1, 0, false},
		{"udp", lnUDP, 2, 2, false},
		{"unixgram", lnUnixgram, 1, 0, false},
		{"http get, keep-alive", lnHTTP, 4, 6, false},
		{"http post, keep-alive", lnHTTP, 4, 6, false},
		{"http post, short", lnHTTP, 1, 2, false},
		{"http, slow reader", lnHTTP, 2, 0, false},
		{"http, slow writer", lnHTTP, 2, 0, false},
		{"websocket", lnHTTP, 2, 2, false},
		{"tls post, keep-alive", lnTLS, 2, 2, false},
		{"h2 post", lnTLS, 2, 2, true},
		{"grpc, unary", lnGRPC, 2, 1, true},
		{"grpc, stream", lnGRPC, 2, 1, true},
	}
}
