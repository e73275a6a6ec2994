// Leave has two instances of an HTTP server take turns on one SO_REUSEPORT port, under
// clients of other projects, and counts in their output how many requests failed:
//
//	make leave HANDOVERS=100
//
// In each handover the next instance joins the group and the one before gets SIGTERM.
// The clients are ab with and without keep-alive, wrk, h2load, and one that sends POSTs on
// connections that it keeps, none twice. h2load speaks HTTP/2 without TLS. It never
// connects again, so it runs in rounds, which a handover ends early; package witness
// counts what it has sent, and what GOAWAY has refused. Baton's instances end by
// handoffhttp.Run; as controls, others end as net/http offers it: Drain and then Shutdown,
// Shutdown alone, Close. Baton's have runs of their own as an unprivileged user, and over
// a link with a round trip of 50 ms, for which the program needs root. The programs are
// those of apache2-utils, wrk and nghttp2-client.
//
// Its last line is "result: handovers=… requests=… failed=…". The exit status is not 0 if
// one of Baton's requests failed, or if no request of the controls did: then the run has
// proved nothing. It says so as well of a client of which the controls failed none.
package main
