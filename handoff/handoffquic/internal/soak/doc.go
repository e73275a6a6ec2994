// Command soak replaces an HTTP/3 server under load, in each mode, and a control that has
// no lanes. Its last line for each run is its result:
//
//	result: upgrades=100 requests=… connections=… migrations=… failed=0 broken=0 rejected=0 strayed=0
//
// The clients are in another process, and send nothing twice. They keep connections with
// POSTs under way, of which a third changes the client's address, and make new ones all the
// time. An answer has strayed if another process gives it than the first of the connection.
package main
