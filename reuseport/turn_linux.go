package reuseport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// byOther is steered with another way of steering.
func (l *leave) byOther(ctx context.Context, s Steerer, left []*socket, inodes []uint32) error {
	conns := make([]syscall.Conn, len(left))
	for i, sock := range left {
		conns[i] = sock.conn
	}
	if err := s.Away(conns...); err != nil {
		return err
	}
	l.note(StrategySteerer)
	l.migrate = s.Migrates()
	if err := awaitGrace(ctx); err != nil {
		return l.abandon(left, err)
	}
	if err := l.wait(ctx, left, l.migrate, nil); err != nil {
		return l.abandon(left, err)
	}
	exposed, err := l.closeListeners(ctx, left)
	if err != nil {
		return l.abandon(left, err)
	}
	var now []uint32
	if l.dc != nil {
		now, _, _ = l.group() // if it is not known, they may have gone
	}
	l.noteExposed(exposed, now)
	return nil
}

// afterwards explains a group that is not as it should be after a close.
func (l *leave) afterwards(now, want []uint32, victims []*socket) {
	for _, s := range victims {
		if slices.Contains(now, s.inode) {
			l.report.note("another process has a duplicate of the member, which stays in the group")
			return
		}
	}
	if len(slices.DeleteFunc(slices.Clone(want), func(i uint32) bool { return slices.Contains(now, i) })) > 0 {
		l.lossy("another member left the group in the same moment without taking turns")
	}
}

// order returns the inodes of the group by index, 0 for members of others.
func (l *leave) order(ctx context.Context, inodes []uint32) ([]uint32, error) {
	l.c.mu.Lock()
	known := slices.Clone(l.c.order)
	l.c.mu.Unlock()
	same := slices.Equal(slices.Sorted(slices.Values(known)), inodes)
	if l.probe != nil && !(l.c.udp && same) {
		locate := l.probe.locate
		if l.c.udp {
			locate = l.probe.locateUDP
		}
		order, err := locate(ctx, l.c.members(), len(inodes), l.c.prog)
		if err == nil {
			return order, nil
		}
		if now, _, gerr := l.group(); gerr == nil && !slices.Equal(now, inodes) {
			return nil, errChanged
		}
		return nil, err
	}
	if !same {
		return nil, fmt.Errorf("the order of the group's members is not known and can't be found by probing: %w", errors.ErrUnsupported)
	}
	if !l.c.udp {
		l.lossy("steering could not be verified: the own address can't be reached")
	}
	return known, nil
}

// turn attaches prog and checks that it keeps traffic away from sockets.
func (l *leave) turn(ctx context.Context, prog program, away []*socket) error {
	own := l.c.members()
	if l.probe != nil && !l.c.udp {
		if err := l.probe.verify(ctx, own, away, prog, min(4, 2*len(prog.targets))); err != nil {
			return err
		}
	}
	if err := attach(own[0].conn, &prog); err != nil {
		return err
	}
	l.c.prog = prog
	return nil
}
