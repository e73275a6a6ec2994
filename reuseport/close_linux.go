package reuseport

import (
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// takeOut lets the quiet members leave, one after the other, and closes them.
// order has the inodes of the group by place. It returns the order afterwards and the
// members that have left: fewer than are quiet, if one of these had to take the traffic
// meanwhile, or if a duplicate keeps a closed one in the group.
func (t *turn) takeOut(ctx context.Context, order []uint32, quietOnes, left []*socket) (_ []uint32, out []*socket, err error) {
	var hiddenUDP []*socket
	for todo, last := quietOnes, false; len(todo) > 0 && !last; {
		place, targets, requeued := nextLeaving(roles(order, todo, remaining(left, out)))
		if place < 0 {
			return order, out, fmt.Errorf("no member can get the traffic while another one leaves: %w", ErrNotSteered)
		}
		s := todo[slices.IndexFunc(todo, func(s *socket) bool { return s.inode == order[place] })]
		if !slices.Equal(targets, t.g.prog.targets) {
			via := remaining(t.g.sockets(), hiddenUDP)[0]
			if err := t.attach(program{targets: targets, sticky: t.g.udp}, via); err != nil {
				return order, out, err
			}
		}
		order, last = without(order, place), requeued
		todo, out = remaining(todo, []*socket{s}), append(out, s)
		if hidden := t.leaveGroup(s); hidden && t.g.udp {
			hiddenUDP = append(hiddenUDP, s)
		} else if t.duplicated(ctx, s, hidden) {
			last = true
		}
	}
	if len(hiddenUDP) == 0 {
		return order, out, nil
	}
	// A lookup that had seen a socket before it was hidden may have given it
	// something after that.
	if err := awaitGrace(context.WithoutCancel(ctx)); err != nil {
		return order, out, err
	}
	t.settled(hiddenUDP...)
	t.shut(hiddenUDP...)
	return order, out, nil
}

// leaveGroup takes s, which is quiet, out of the kernel's group: a UDP socket by
// hiding it, a listener by closing it, hidden.
//
// A hidden listener is still in its group, and ignores a SYN that comes to it
// there, because no way leads out of its interface. A listener that moves to the
// closed part of its group (reuseport_stop_listen_sock, where the kernel migrates)
// is never without a group, and needs no hiding.
//
// A grace is not waited for, as it is for UDP: a lookup that had found a listener
// before it was hidden has nanoseconds to its group, and would have to be held up
// there for as long as two system calls take.
func (t *turn) leaveGroup(s *socket) (hidden bool) {
	// The last member of this process has nothing to take the program off with
	// once it is closed. What the hash gives to it until then is a SYN that a
	// hidden listener ignores, and that its client repeats.
	last := !t.g.udp && len(t.g.sockets()) == 1
	if !t.migrate || last {
		hidden = !s.shared.Load() && bindNowhere(s.conn) == nil
	}
	if t.g.udp && hidden {
		return true
	}
	if hidden && !t.migrate {
		t.settled(s) // another process may have left without taking turns
	}
	if last {
		if err := t.detach(s); err != nil {
			t.report.note("the program stays on the group: " + err.Error())
		}
	}
	t.shut(s)
	return hidden
}

// nowhere is the index of an interface that no machine has.
const nowhere = 1<<31 - 1

// bindNowhere hides a socket: it keeps it from being found while it closes. The
// kernel takes a socket out of its group first and off its hash list afterwards
// (udp_lib_unhash, net/ipv4/udp.c; inet_unhash, net/ipv4/inet_hashtables.c); a
// lookup that comes by in between, if only in a softirq that the first step has put
// off, finds a socket without a group, and gives it the datagram or the SYN. Of
// listeners that is the one that is first on the list: the last that has listened
// with IPv4, the first with IPv6. A lookup passes over a socket that is bound to
// another interface; a UDP socket is out of its group then, too (udp_lib_rehash),
// and sock_diag passes it over as well. That is possible once without privilege
// (Linux 5.7), and would harm a process that uses a duplicate of the socket.
func bindNowhere(c syscall.Conn) error {
	return control(c, func(fd int) error {
		return os.NewSyscallError("setsockopt(SO_BINDTOIFINDEX)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, nowhere))
	})
}

// shut closes the sockets in this order.
func (t *turn) shut(socks ...*socket) {
	for _, s := range socks {
		if !t.g.drop(s) {
			continue // closed meanwhile by its user
		}
		t.errs = append(t.errs, s.close())
		t.report.Settle = max(t.report.Settle, time.Since(t.busy))
		t.report.Members++
	}
}

// forkTime is how long a child of this process may have a duplicate of each
// descriptor, between fork and exec on a busy machine.
const forkTime = 2 * time.Second

// duplicated reports whether s stays in the group although this process has closed
// it. Nothing is steered to it yet. Without sock_diag it is not known.
func (t *turn) duplicated(ctx context.Context, s *socket, hidden bool) bool {
	start := time.Now()
	for {
		var there []diag.Socket
		if t.dc != nil {
			there, _ = t.dc.Listeners(t.key.query) // else it is not known
		}
		i := slices.IndexFunc(there, func(m diag.Socket) bool { return m.Inode == s.inode })
		switch {
		case i < 0 && !hidden && !t.migrate:
			what, see := "connection", "Listener"
			if t.g.udp {
				what, see = "datagram", "PacketConn"
			}
			t.lossy("a " + what + " that came in the instant of the close can be lost: the socket may have been shared, see " + see + ".SyscallConn, or was bound to a device, or Linux is older than 5.7")
			return false
		case i < 0:
			return false
		case !hidden:
			t.report.note("another process has a duplicate of the member, which stays in the group")
			return true
		case time.Since(start) > forkTime || sleep(ctx, time.Millisecond) != nil:
			t.lossy("another process has a duplicate of the member, which stays in the group and drops what comes to it")
			return true
		}
	}
}

// roles returns what becomes of the members of order.
func roles(order []uint32, quietOnes, left []*socket) []role {
	all := make([]role, len(order))
	for i, inode := range order {
		switch {
		case hasInode(quietOnes, inode):
			all[i] = quiet
		case hasInode(left, inode):
			all[i] = leaves
		}
	}
	return all
}

func hasInode(socks []*socket, inode uint32) bool {
	return slices.ContainsFunc(socks, func(s *socket) bool { return s.inode == inode })
}
