// Package netlab gives tests network namespaces of their own, alone or as a pair that
// is joined by a link with a delay. On the loopback interface a handshake is too short
// for anything to happen in it; on such a link it takes as long as in a real network.
//
// It needs root and Linux. A namespace has no name, so nothing has to be removed
// after a test that was killed.
package netlab
