// Package session is the conversation between a predecessor and its successor:
// one protocol, whatever the mode, over one [Link].
//
// Each side is a pure state machine ([offer] for the predecessor, [claim] for
// the successor) and a driver that feeds it with messages, deaths, deadlines
// and requests, and carries out its actions through hooks. The machines decide
// who wins when either side dies, hangs or changes its mind; a test walks
// through every interleaving of the two and looks for a state in which nobody
// serves, or in which both are committed.
//
// The rules that the machines keep:
//
//   - The predecessor lets go of nothing before it has sent Commit, and the
//     successor owns nothing before it has read Commit, or found the
//     predecessor dead or silent.
//   - The successor ends its probation with exactly one of Committed, Took,
//     Abort and RolledBack. The predecessor takes back its sockets on Abort, on
//     RolledBack, or on the death of the successor, and never after Committed
//     or Took.
//   - A successor opens its gate before it says Ready. It is killed only if it can't
//     have opened it, or is silent: what it has accepted it serves to the end.
//   - Silence is counted in ticks of the listener's own clock, so that a
//     machine that slept does not blame its peer for the time.
//
// The package starts goroutines only in [Converse] and in the drivers' Run
// methods; each ends with the conversation.
package session
