// Peers upgrades Baton and what else there is, one after the other, under the
// same clients and the same load, and prints what the clients have seen as a
// table, JSON and a picture:
//
//	peers -upgrades 3 -links 0s,50ms -peers baton-takeover,tableflip,nginx-usr2
//
// The peers are Go libraries (each with net/http and the same handler, as its
// README shows it) and servers of Debian sid, which the program, as root, unpacks
// by apt into a folder of its own; nothing is installed on the machine. What can't
// be had has a row that says why.
//
// # How it counts
//
// Clients in another process send, at a fixed rate, GETs on connections of their
// own, GETs and POSTs on connections that they keep. Nothing is sent twice. A
// request has failed if no response with status 200 came: also one that was sent
// on a connection that the server had closed while it was idle. These are told
// apart: "unseen" are the failures that a client could not have avoided by looking
// at its connection before it sent.
//
// Each version names itself in each response. An upgrade counts when the new
// version has answered; a run in which that does not happen fails. Latency is
// that from the moment when a request was due, so that a client which waits for
// an answer does not hide what the next request would have met. "Around" an
// upgrade is within half a second of its trigger, of the new version's first
// answer or of the old one's last; steady state is what is further away from the
// whole of it. The accept gap is the time between two answers to new connections.
// Memory is the proportional set size (PSS) of all processes of the peer together.
// Requests per second are those of keep-alive GETs without pause, before any
// upgrade, by clients on the same machine.
package main
