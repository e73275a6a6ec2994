package reuseport

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// doorstop is a listener that keeps the group's program reachable after the last
// member of this process has left, so that it can be taken off. Without it the
// program would stay, and name indexes that are others' by then.
//
// Its queue has room for one connection, and that is one of our own, so it
// drops each SYN that comes to it, which its client repeats after a second
// (tcp_conn_request). That happens only between taking the program off and
// closing it.
type doorstop struct {
	f     *os.File
	inode uint32
	shot  *shot
}

// placeDoorstop puts a doorstop at the end of the group, while prog is in force
// and chooses among the members of inodes.
func (l *leave) placeDoorstop(ctx context.Context, prog program, inodes []uint32) (d *doorstop, err error) {
	f, err := l.c.fresh(ctx)
	if err != nil {
		return nil, err
	}
	d = &doorstop{f: f}
	defer func() {
		if err != nil {
			d.remove(l)
			d = nil
		}
	}()
	err = control(f, func(fd int) (err error) {
		if d.inode, err = inodeOf(fd); err != nil {
			return err
		}
		return os.NewSyscallError("listen", unix.Listen(fd, 0))
	})
	if err != nil {
		return d, err
	}
	want := slices.Sorted(slices.Values(append(slices.Clone(inodes), d.inode)))
	if now, _, err := l.group(); err != nil || !slices.Equal(now, want) {
		return d, errChanged
	}
	fill := prog
	shots, err := l.probe.aim(&fill, []int{len(inodes)})
	if err != nil {
		return d, err
	}
	d.shot = shots[0]
	members := l.c.members()
	via := members[0].conn
	d.shot.in = members // if it doesn't come to d
	if err := attach(via, &fill); err != nil {
		return d, err
	}
	if err := errors.Join(l.probe.fire(ctx, d.shot), attach(via, &prog)); err != nil {
		return d, err
	}
	if n, _, err := queueLen(f); err != nil || n == 0 {
		return d, fmt.Errorf("fill the queue of the socket that takes it off: %w", ErrNotSteered)
	}
	d.shot.in = nil
	return d, nil
}

// remove takes d away, which may be nil, and the program before it once the last
// member has left.
//
// It is hidden first, while no traffic comes to it: its own connection leaves the
// queue while it closes, and a SYN that the hash has given to it would find room
// in a listener that is no more.
func (d *doorstop) remove(l *leave) {
	if d == nil {
		return
	}
	if err := bindNowhere(d.f); err != nil {
		l.lossy("a connection that came in the instant of the close of the socket that takes the program off can be lost: " + err.Error())
	}
	if len(l.c.members()) == 0 {
		if err := detach(d.f); err != nil {
			l.report.note("the program stays on the group: " + err.Error())
		}
		l.c.prog = program{}
	}
	_ = d.f.Close() // it holds nothing but our own connection
	if d.shot != nil {
		l.probe.end([]*shot{d.shot})
	}
}
