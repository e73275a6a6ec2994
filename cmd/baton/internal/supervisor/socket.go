package supervisor

import (
	"fmt"
	"strings"
)

// DefaultName is the name of a socket without one, as in sd_listen_fds_with_names(3).
const DefaultName = "unknown"

// A Socket is a socket to bind for the app.
type Socket struct {
	Name             string // in LISTEN_FDNAMES
	Network, Address string // those of package net
}

// ParseSocket parses [NAME=]NETWORK://HOST:PORT for tcp, tcp4, tcp6, udp, udp4 and
// udp6, and [NAME=]NETWORK:PATH for unix, unixgram and unixpacket; a PATH that
// begins with "@" is an abstract name (unix(7)).
func ParseSocket(text string) (Socket, error) {
	s := Socket{Name: DefaultName}
	rest := text
	if name, after, ok := strings.Cut(text, "="); ok && !strings.ContainsAny(name, ":/") {
		s.Name, rest = name, after
		if !validName(name) {
			return Socket{}, fmt.Errorf("%w: socket %q: a name is made of letters, digits, dots, dashes and underlines", ErrConfig, text)
		}
	}
	network, address, ok := strings.Cut(rest, ":")
	switch s.Network = network; network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		address, ok = strings.CutPrefix(address, "//")
		ok = ok && strings.Contains(address, ":")
	case "unix", "unixgram", "unixpacket":
		if path, cut := strings.CutPrefix(address, "//"); cut { // as in unix:///run/app.sock
			address = path
		}
		ok = ok && (strings.HasPrefix(address, "/") || strings.HasPrefix(address, "@")) && len(address) > 1
	default:
		ok = false
	}
	if !ok || strings.ContainsRune(address, 0) { // NUL would end it in the kernel and in the environment
		return Socket{}, fmt.Errorf("%w: socket %q: want [NAME=]tcp://HOST:PORT, udp://HOST:PORT, unix:/PATH or unix:@NAME", ErrConfig, text)
	}
	s.Address = address
	return s, nil
}

// validName is stricter than systemd, which only forbids colons.
func validName(name string) bool {
	if name == "" || len(name) > 255 {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
	}) < 0
}

// String returns a text that ParseSocket parses to s.
func (s Socket) String() string {
	sep := ":"
	if !strings.HasPrefix(s.Network, "unix") || strings.HasPrefix(s.Address, "//") { // ParseSocket would cut the first two slashes
		sep = "://"
	}
	name := s.Name + "="
	if s.Name == DefaultName {
		name = ""
	}
	return name + s.Network + sep + s.Address
}
