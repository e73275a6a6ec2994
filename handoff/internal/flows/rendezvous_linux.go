package flows

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/trust"
)

// askTimeout bounds a conversation at the rendezvous. A process that is stopped may have
// the only listener.
const askTimeout = 2 * time.Second

// rendezvousOf is the abstract address for a UDP address. Both belong to the network
// namespace. Another user can't have the UDP address at the same time, but the abstract
// one: both sides look at the peer.
func rendezvousOf(network string, at *net.UDPAddr) *net.UnixAddr {
	host := network // of all addresses
	if len(at.IP) > 0 && !at.IP.IsUnspecified() {
		host = (&net.IPAddr{IP: at.IP, Zone: at.Zone}).String()
	}
	return &net.UnixAddr{Net: "unixpacket", Name: fmt.Sprintf("@baton/flows/%d/%s", os.Geteuid(), net.JoinHostPort(host, strconv.Itoa(at.Port)))}
}

func newRendezvous(k Key, bound net.Addr) (*net.UnixListener, error) {
	return net.ListenUnix("unixpacket", rendezvousOf(k.Network, bound.(*net.UDPAddr)))
}

// listener returns the rendezvous that has arrived.
func (a *arrival) listener() (*net.UnixListener, error) {
	if a.meet < 0 {
		return nil, errors.New("the predecessor has no rendezvous")
	}
	ln, err := fdx.Listener(a.meet, "rendezvous")
	if err != nil {
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}

// answer gives lanes to processes that start anew.
func (s *Set) answer() {
	defer close(s.answered)
	for {
		c, err := s.meet.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // for want of a descriptor or of memory
			select {
			case <-s.stop:
				return
			case <-time.After(lookInterval):
			}
			continue
		}
		if cred, err := fdx.PeerCred(c); err == nil && trust.User(cred.UID) && s.orphaned() {
			_ = s.give(c) // the peer sees that nothing comes
		}
		_ = c.Close() // nothing waits in it
	}
}

// give sends what a successor gets.
func (s *Set) give(c *net.UnixConn) error {
	items, err := s.items()
	if err != nil {
		return err
	}
	var fds []int
	for _, it := range items {
		fds = append(fds, it.FD)
	}
	defer fdx.Close(fds...)
	if err := c.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return err
	}
	_, _, err = c.WriteMsgUnix([]byte{byte(len(fds))}, syscall.UnixRights(fds...), nil)
	return err
}

// ask returns the lanes of a process that lingers. ECONNREFUSED says that there is none,
// and errServes that it does not give them.
func ask(ctx context.Context, k Key) (*arrival, error) {
	at, err := net.ResolveUDPAddr(k.Network, k.Address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	to := rendezvousOf(k.Network, at)
	conn, err := d.DialContext(ctx, to.Net, to.Name)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := conn.(*net.UnixConn)
	switch cred, err := fdx.PeerCred(c); {
	case err != nil:
		return nil, err
	case !trust.User(cred.UID):
		return nil, fmt.Errorf("%w: the abstract socket %s is of uid %d", failure.PeerRefused, to.Name, cred.UID)
	}
	if err := c.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return nil, err
	}
	return receiveLanes(c)
}

func receiveLanes(c *net.UnixConn) (*arrival, error) {
	size := make([]byte, 1)
	oob := make([]byte, syscall.CmsgSpace(4*(MaxLanes+2)))
	n, oobn, flags, _, err := c.ReadMsgUnix(size, oob) // with close-on-exec
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("the processes that have it do not answer: %w", err)
	case err != nil || n == 0:
		return nil, errServes
	}
	var fds []int
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		got, rerr := syscall.ParseUnixRights(&messages[i])
		fds, err = append(fds, got...), errors.Join(err, rerr)
	}
	const others = 2 // rendezvous and table
	if err == nil && (flags&syscall.MSG_CTRUNC != 0 || len(fds) != int(size[0]) || len(fds) <= others) {
		err = fmt.Errorf("%d of %d descriptors: raise RLIMIT_NOFILE", len(fds), size[0])
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: lanes of a process that lingers: %w", failure.Transfer, err), fdx.Close(fds...))
	}
	lanes := len(fds) - others
	return &arrival{lanes: group(fds[:lanes]), meet: fds[lanes], table: fds[lanes+1]}, nil
}
