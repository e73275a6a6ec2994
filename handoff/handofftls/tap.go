package handofftls

import (
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"sync"
)

// A tap is the net.Conn below crypto/tls. It counts the records in both directions, and
// the key log of its connection ends in it. During the handshake it gives crypto/tls one
// record at a time: so crypto/tls has read nothing ahead when the handshake ends, and the
// count begins at zero.
type tap struct {
	net.Conn

	shaking bool
	ahead   []byte // read and not given to crypto/tls yet
	flight  []byte // all that crypto/tls has written in the handshake
	logged  logged // by the key log, in the handshake

	in    framer // since the handshake; of the goroutine that reads
	exact bool   // nothing is read beyond the end of a header or record

	mu     sync.Mutex
	out    framer // since the handshake
	broken bool   // a Write has failed: a part of a record may be out
	moved  bool   // nothing is written any more
}

// logged are the secrets of one connection.
type logged struct {
	clientRandom, master []byte // TLS 1.2
	in, out              []byte // TLS 1.3: the application traffic secrets of client and server
}

func (t *tap) Read(p []byte) (int, error) {
	if t.shaking {
		return t.readRecord(p)
	}
	var n int
	var err error
	if len(t.ahead) > 0 {
		n = copy(p, t.ahead)
		if t.ahead = t.ahead[n:]; len(t.ahead) == 0 {
			t.ahead = nil
		}
	} else {
		if t.exact {
			p = p[:min(len(p), t.in.want())]
		}
		n, err = t.Conn.Read(p)
	}
	t.in.pass(p[:n])
	return n, err
}

// readRecord reads to the end of a header or record, at most.
func (t *tap) readRecord(p []byte) (int, error) {
	if len(t.ahead) == 0 {
		b := make([]byte, 4096)
		n, err := t.Conn.Read(b)
		if n == 0 {
			return 0, err
		}
		t.ahead = b[:n] // an error comes again with the next Read
	}
	n := copy(p, t.ahead[:min(t.in.want(), len(t.ahead))])
	t.in.pass(t.ahead[:n])
	t.ahead = t.ahead[n:]
	return n, nil
}

func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.moved {
		return 0, ErrMoved
	}
	n, err := t.Conn.Write(p)
	if t.shaking {
		t.flight = append(t.flight, p[:n]...)
	}
	t.out.pass(p[:n])
	t.broken = t.broken || err != nil
	return n, err
}

// NetConn returns the connection that the user gave.
func (t *tap) NetConn() net.Conn { return t.Conn }

// shaken ends the handshake.
func (t *tap) shaken() {
	t.shaking = false
	t.ahead = bytes.Clone(t.ahead) // of a larger array; nil if empty
	if len(t.ahead) == 0 {
		t.ahead = nil
	}
	t.in = framer{}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.out = framer{}
}

// keyLog is the KeyLogWriter of one connection. crypto/tls writes a line with each call:
// a label, the client's random and a secret, in hexadecimal
// (https://www.ietf.org/archive/id/draft-ietf-tls-keylogfile-05.html).
type keyLog struct {
	tap  *tap
	user io.Writer // the user's KeyLogWriter, or nil
}

func (k *keyLog) Write(line []byte) (int, error) {
	if f := bytes.Fields(line); len(f) == 3 {
		l := &k.tap.logged
		switch string(f[0]) {
		case "CLIENT_TRAFFIC_SECRET_0":
			l.in = unhex(f[2])
		case "SERVER_TRAFFIC_SECRET_0":
			l.out = unhex(f[2])
		case "CLIENT_RANDOM":
			l.clientRandom, l.master = unhex(f[1]), unhex(f[2])
		}
	}
	if k.user != nil {
		return k.user.Write(line)
	}
	return len(line), nil
}

// unhex returns nil for what is not hexadecimal.
func unhex(s []byte) []byte {
	b := make([]byte, hex.DecodedLen(len(s)))
	if _, err := hex.Decode(b, s); err != nil {
		return nil
	}
	return b
}
