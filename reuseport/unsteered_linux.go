package reuseport

import (
	"context"
)

// last ends the last members of the group: nobody is there to get the traffic.
func (l *leave) last(ctx context.Context, left []*socket) error {
	l.report.Last = true
	if l.c.udp {
		l.note(StrategyBestEffort)
		l.lossy("no other member")
		l.crowded = true
		if err := l.wait(ctx, left, false, nil); err != nil {
			return l.abandon(left, err)
		}
		l.shut(left)
		return nil
	}
	return l.unsteered(ctx, left, nil)
}

// unsteered lets sockets leave without a program.
func (l *leave) unsteered(ctx context.Context, left []*socket, why error) error {
	if why != nil {
		l.report.note("not steered: " + why.Error())
		if l.migrate {
			l.note(StrategyMigrate)
			l.lossy("a SYN can meet the close")
			l.shut(left)
			return nil
		}
	}
	for i, s := range left {
		err := stopQueueing(s.conn)
		if err == nil {
			continue
		}
		for _, s := range left[:i] {
			_ = resumeQueueing(s.conn) // it was put on a moment ago
		}
		return l.bestEffort(ctx, left, err)
	}
	l.note(StrategyStopQueueing)
	if err := awaitGrace(ctx); err != nil {
		return l.abandon(left, err)
	}
	if err := l.wait(ctx, left, false, nil); err != nil {
		return l.abandon(left, err)
	}
	l.shut(left)
	return nil
}

// canStop reports whether stopQueueing works.
func (l *leave) canStop(sockets []*socket) bool {
	if l.c.udp || stopQueueing(sockets[0].conn) != nil {
		return false
	}
	return resumeQueueing(sockets[0].conn) == nil
}

// bestEffort serves what is there and closes.
func (l *leave) bestEffort(ctx context.Context, left []*socket, why error) error {
	l.note(StrategyBestEffort)
	l.lossy(why.Error())
	l.crowded = true
	// What is new after this moment is not waited for, or a busy listener
	// would never end.
	if l.refs != nil {
		l.refs.close()
		l.refs = nil
	}
	if err := l.wait(ctx, left, false, nil); err != nil {
		return l.abandon(left, err)
	}
	l.shut(left)
	return nil
}
