// Package session is the conversation between a predecessor and its successor:
// one protocol, whatever the mode, over one [Link].
//
// Each side is a pure state machine ([predState] for the predecessor, [succState] for
// the successor) and a driver that feeds it with messages, deaths, deadlines
// and requests, and carries out its actions through hooks. The machines decide
// which side serves when either dies, hangs or gives up. A test explores every
// interleaving of the two and fails at a state in which no process serves, or in
// which both are committed.
//
// The rules that the machines keep:
//
//   - The predecessor releases nothing before it has sent Commit. The successor
//     owns nothing before it has read Commit, or found the predecessor dead or
//     silent.
//   - The successor ends its probation with exactly one of Committed, Took,
//     Abort and RolledBack. The predecessor takes back its sockets on Abort, on
//     RolledBack, or on the death of the successor, and never after Committed
//     or Took.
//   - A successor opens its gate before it sends Ready. The predecessor kills it
//     only if it can't have opened the gate, or is silent: it serves what it has
//     accepted to the end.
//   - Each side counts silence in ticks of its own clock: time in which the machine
//     slept does not count.
//
// The package starts goroutines only in [Converse] and in the drivers' Run
// methods; each ends with the conversation.
package session
