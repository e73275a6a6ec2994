package handoff

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// storePrefix begins the name of each descriptor that we put into systemd's store.
// Others are the program's own.
const storePrefix = "baton.1|"

// storeName returns the name under which a socket is in systemd's store: all that a
// process has to know of it which has nobody to ask.
//
//	baton.1|KIND|NETWORK|ADDRESS|SHARD|NAME|DEVICE.INODE
//
// with the network and the address as asked for, and the identity of the path that
// a unix socket is bound to, in hexadecimal digits, if that is ours to remove. It
// is an error if there is no room for so much (sd_pid_notify_with_fds(3)).
func storeName(e *wire.Socket) (string, error) {
	path := ""
	if e.PathIno != 0 {
		path = fmt.Sprintf("%x.%x", e.PathDev, e.PathIno)
	}
	fields := []string{kindName(e.Kind), escape(e.Network), escape(e.Address), strconv.FormatUint(uint64(e.Shard), 10), escape(e.Name), path}
	name := storePrefix + strings.Join(fields, "|")
	if !sdnotify.ValidName(name) {
		return "", fmt.Errorf("%w: a name of %d bytes for systemd's store: use a shorter address or name", ErrUnsupported, len(name))
	}
	return name, nil
}

// parseStoreName is the reverse of storeName, as far as that goes.
func parseStoreName(name string) (*wire.Socket, error) {
	fields := strings.Split(strings.TrimPrefix(name, storePrefix), "|")
	bad := fmt.Errorf("%q is no name of a socket", name)
	if !strings.HasPrefix(name, storePrefix) || len(fields) != 6 {
		return nil, bad
	}
	e := &wire.Socket{Keeper: wire.KeeperStore}
	switch fields[0] {
	case kindName(wire.KindListener):
		e.Kind = wire.KindListener
	case kindName(wire.KindPacket):
		e.Kind = wire.KindPacket
	default:
		return nil, bad
	}
	for i, to := range map[int]*string{1: &e.Network, 2: &e.Address, 4: &e.Name} {
		text, err := url.PathUnescape(fields[i])
		if err != nil {
			return nil, bad
		}
		*to = text
	}
	shard, err := strconv.ParseUint(fields[3], 10, 32)
	if err != nil {
		return nil, bad
	}
	e.Shard = uint32(shard)
	if fields[5] == "" {
		return e, nil
	}
	dev, ino, _ := strings.Cut(fields[5], ".")
	if e.PathDev, err = strconv.ParseUint(dev, 16, 64); err != nil {
		return nil, bad
	}
	if e.PathIno, err = strconv.ParseUint(ino, 16, 64); err != nil {
		return nil, bad
	}
	return e, nil
}

// escape writes what systemd does not allow in a name, or what we need for
// ourselves, as %XX.
func escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' || c == ':' || c == '|' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
