package systemd

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// namePrefix begins the name of each descriptor that this package stores. Others
// are the program's own.
const namePrefix = "baton.1|"

// kinds are the names of what is stored.
var kinds = map[wire.SocketKind]string{wire.KindListener: "listener", wire.KindPacket: "packet"}

// NameOf returns the name under which a socket is stored, by its entry in the
// manifest. The name has all that a process needs to know of the socket without a
// predecessor:
//
//	baton.1|KIND|NETWORK|ADDRESS|SHARD|NAME|DEVICE.INODE
//
// with the network and the address as the program asked for them, escaped as in a
// URL's query, and the identity of the path that a unix socket is bound to, in
// hexadecimal digits, if this service has to remove the path. The name may be longer
// than systemd allows (sd_pid_notify_with_fds(3)).
func NameOf(e *wire.Socket) string {
	path := ""
	if e.PathIno != 0 {
		path = fmt.Sprintf("%x.%x", e.PathDev, e.PathIno)
	}
	return namePrefix + strings.Join([]string{
		kinds[e.Kind], url.QueryEscape(e.Network), url.QueryEscape(e.Address), strconv.FormatUint(uint64(e.Shard), 10), url.QueryEscape(e.Name), path,
	}, "|")
}

// StoredAs returns the name under which systemd's store has the socket of an entry;
// empty if it has not.
func StoredAs(e *wire.Socket) string {
	if e.Keeper != wire.KeeperStore {
		return ""
	}
	return NameOf(e)
}

// parseName is the reverse of NameOf, as far as that is possible.
func parseName(name string) (*wire.Socket, error) {
	bad := fmt.Errorf("%q is no name of a socket", name)
	fields := strings.Split(strings.TrimPrefix(name, namePrefix), "|")
	if !strings.HasPrefix(name, namePrefix) || len(fields) != 6 {
		return nil, bad
	}
	e := &wire.Socket{Keeper: wire.KeeperStore}
	switch fields[0] {
	case kinds[wire.KindListener]:
		e.Kind = wire.KindListener
	case kinds[wire.KindPacket]:
		e.Kind = wire.KindPacket
	default:
		return nil, bad
	}
	shard, err := strconv.ParseUint(fields[3], 10, 32)
	if err != nil {
		return nil, bad
	}
	e.Shard = uint32(shard)
	for i, to := range map[int]*string{1: &e.Network, 2: &e.Address, 4: &e.Name} {
		if *to, err = url.QueryUnescape(fields[i]); err != nil {
			return nil, bad
		}
	}
	if fields[5] == "" {
		return e, nil
	}
	if _, err := fmt.Sscanf(fields[5], "%x.%x", &e.PathDev, &e.PathIno); err != nil {
		return nil, bad
	}
	return e, nil
}
