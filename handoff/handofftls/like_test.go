package handofftls

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// scripted is a connection in memory: after the handshake it reads from a script.
type scripted struct {
	net.Conn
	script *bytes.Reader // nil in the handshake
	wrote  bytes.Buffer
}

func (s *scripted) Read(p []byte) (int, error) {
	if s.script == nil {
		return s.Conn.Read(p)
	}
	return s.script.Read(p)
}

func (s *scripted) Write(p []byte) (int, error) {
	if s.script == nil {
		return s.Conn.Write(p)
	}
	return s.wrote.Write(p)
}

func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// twins returns one connection twice, served by crypto/tls and by a record layer of this
// package, and the client's half.
func twins(tb testing.TB, cfg *Config, version uint16) (original, moved *Conn, client half) {
	tb.Helper()
	if err := cfg.Probe(); err != nil {
		tb.Fatal(err)
	}
	near, far := net.Pipe()
	defer far.Close()
	tc := tls.Client(far, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
	shaken := make(chan error, 1)
	go func() { shaken <- tc.Handshake() }()
	s := &scripted{Conn: near}
	original, err := serve(context.Background(), s, cfg)
	if err := errors.Join(err, <-shaken); err != nil {
		tb.Fatal(err)
	}
	s.script = bytes.NewReader(nil)
	m := original.moving()
	su, _ := suiteOf(m.version, m.suite, nil)
	if client, err = newHalf(m.version, su, bytes.Clone(m.in), m.inSeq); err != nil {
		tb.Fatal(err)
	}
	moved, _, err = receive(handoff.MovedConn{Conn: &scripted{Conn: near, script: bytes.NewReader(nil)}, State: m.encode(nil)}, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return original, moved, client
}

// trace is all that can be seen of a connection from outside.
type trace struct {
	data  string // that Read has returned
	wrote string // to the client
	end   string
}

// play has a connection read a script to its end, and answer now and then.
func play(c *Conn, script []byte, size int) trace {
	s := c.raw.(*scripted)
	s.script = bytes.NewReader(script)
	var data bytes.Buffer
	buf := make([]byte, size)
	for i := 1; ; i++ {
		n, err := c.Read(buf)
		data.Write(buf[:n])
		if i%4 == 0 {
			_, _ = c.Write([]byte("answer")) // seen in wrote
		}
		if err != nil {
			return trace{data.String(), s.wrote.String(), class(err)}
		}
	}
}

// class says what a program can do with an error: crypto/tls's own texts are no promise.
func class(err error) string {
	var op *net.OpError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return err.Error()
	case errors.As(err, &op) && op.Op == "remote error":
		return err.Error()
	}
	return "ended here"
}

// compare has the twins play one script.
func compare(tb testing.TB, original, moved *Conn, script []byte, size int) trace {
	tb.Helper()
	want, got := play(original, script, size), play(moved, script, size)
	if got != want {
		tb.Fatalf("a connection that has moved:\n%q\none of crypto/tls:\n%q\nfor %x", got, want, script)
	}
	return got
}

// sealed returns records, each of a type and a content.
func sealed(tb testing.TB, h *half, records ...any) []byte {
	tb.Helper()
	var b []byte
	for i := 0; i < len(records); i += 2 {
		var err error
		if b, err = h.seal(b, byte(records[i].(int)), []byte(records[i+1].(string))); err != nil {
			tb.Fatal(err)
		}
	}
	return b
}

// TestLikeCryptoTLS has clients send what they should not: the record layer of a moved
// connection returns the same data, ends in the same way and sends the same bytes, to the
// last, as crypto/tls.
func TestLikeCryptoTLS(t *testing.T) {
	t.Parallel()
	keyUpdate := func(tb testing.TB, h *half, requested string, after ...any) []byte {
		b := sealed(tb, h, typeHandshake, "\x18\x00\x00\x01"+requested)
		if err := h.update(); err != nil {
			tb.Fatal(err)
		}
		return append(b, sealed(tb, h, after...)...)
	}
	header := func(typ, major, minor byte, n int) []byte {
		return append([]byte{typ, major, minor, byte(n >> 8), byte(n)}, make([]byte, min(n, 100))...)
	}
	repeat := func(n int, records ...any) (all []any) {
		for range n {
			all = append(all, records...)
		}
		return all
	}
	big := string(bytes.Repeat([]byte("x"), maxPlain))
	cases := []struct {
		name   string
		script func(tb testing.TB, h *half) []byte
		end    string // of TLS 1.3, "" if it is not the test's matter
	}{
		{"data", func(tb testing.TB, h *half) []byte {
			return sealed(tb, h, typeData, "one", typeData, "", typeData, big)
		}, "EOF"},
		{"close_notify", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeData, "one", typeAlert, "\x01\x00") }, "EOF"},
		{"data after close_notify", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeAlert, "\x01\x00", typeData, "late") }, "EOF"},
		{"an alert", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeAlert, "\x02\x50") }, "remote error: tls: internal error"},
		{"user_canceled", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeAlert, "\x01\x5a", typeData, "on") }, "EOF"},
		{"a warning", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeAlert, "\x01\x70", typeData, "on") }, ""},
		{"an alert of level 3", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeAlert, "\x03\x50") }, ""},
		{"a short alert", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeAlert, "\x02") }, "ended here"},
		{"a long alert", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeAlert, "\x02\x50\x00") }, "ended here"},
		{"an empty alert", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeAlert, "") }, "ended here"},
		{"KeyUpdate", func(tb testing.TB, h *half) []byte { return keyUpdate(tb, h, "\x00", typeData, "new key") }, "EOF"},
		{"KeyUpdate, requested", func(tb testing.TB, h *half) []byte {
			return keyUpdate(tb, h, "\x01", typeData, "1", typeData, "2", typeData, "3", typeData, "4")
		}, "EOF"},
		{"KeyUpdate, malformed", func(tb testing.TB, h *half) []byte { return keyUpdate(tb, h, "\x02", typeData, "new key") }, "ended here"},
		{"KeyUpdate, and the old key", func(tb testing.TB, h *half) []byte {
			return sealed(tb, h, typeHandshake, "\x18\x00\x00\x01\x00", typeData, "old key")
		}, "ended here"},
		{"KeyUpdate, too long", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeHandshake, "\x18\x00\x00\x02\x00\x00") }, "ended here"},
		{"KeyUpdate, in pieces", func(tb testing.TB, h *half) []byte {
			b := sealed(tb, h, typeHandshake, "\x18\x00\x00")
			return append(b, keyUpdateRest(tb, h)...)
		}, "EOF"},
		{"data within KeyUpdate", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeHandshake, "\x18\x00", typeData, "x") }, "ended here"},
		{"change_cipher_spec within KeyUpdate", func(tb testing.TB, h *half) []byte {
			return append(sealed(tb, h, typeHandshake, "\x18\x00"), 20, 3, 3, 0, 1, 1)
		}, "ended here"},
		{"many KeyUpdates", func(tb testing.TB, h *half) (b []byte) {
			for range maxUseless + 1 {
				b = append(b, keyUpdate(tb, h, "\x01")...)
			}
			return append(b, sealed(tb, h, typeData, "x")...)
		}, ""},
		{"another handshake message", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeHandshake, "\x14\x00\x00\x00") }, "ended here"},
		{"two KeyUpdates in a record", func(tb testing.TB, h *half) []byte {
			return sealed(tb, h, typeHandshake, "\x18\x00\x00\x01\x01\x18\x00\x00\x01\x01")
		}, "ended here"},
		{"an empty handshake message", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeHandshake, "") }, "ended here"},
		{"an unknown type", func(tb testing.TB, h *half) []byte { return sealed(tb, h, 99, "x") }, "ended here"},
		{"no type", func(tb testing.TB, h *half) []byte { return sealed(tb, h, 0, "") }, "ended here"},
		{"change_cipher_spec", func(tb testing.TB, h *half) []byte {
			return append([]byte{20, 3, 3, 0, 1, 1}, sealed(tb, h, typeData, "on")...)
		}, "EOF"},
		{"change_cipher_spec, malformed", func(testing.TB, *half) []byte { return []byte{20, 3, 3, 0, 1, 2} }, "ended here"},
		{"change_cipher_spec, malformed, within KeyUpdate", func(tb testing.TB, h *half) []byte {
			return append(sealed(tb, h, typeHandshake, "\x18\x00"), 20, 3, 3, 0, 1, 2)
		}, "ended here"},
		{"change_cipher_spec, encrypted", func(tb testing.TB, h *half) []byte {
			return sealed(tb, h, typeChangeCipherSpec, "\x01", typeData, "on")
		}, "EOF"},
		{"change_cipher_spec, encrypted and malformed", func(tb testing.TB, h *half) []byte {
			return sealed(tb, h, typeChangeCipherSpec, "\x01\x01")
		}, "ended here"},
		{"empty records", func(tb testing.TB, h *half) []byte { return sealed(tb, h, repeat(maxUseless, typeData, "")...) }, "EOF"},
		{"too many empty records", func(tb testing.TB, h *half) []byte {
			return sealed(tb, h, append(repeat(maxUseless+1, typeData, ""), typeData, "x")...)
		}, "ended here"},
		{"too many, with data between", func(tb testing.TB, h *half) []byte {
			return sealed(tb, h, append(append(repeat(maxUseless, typeData, ""), typeData, "x"), repeat(maxUseless, typeData, "")...)...)
		}, "EOF"},
		{"a record in the clear", func(testing.TB, *half) []byte { return header(typeAlert, 3, 3, 2) }, "ended here"},
		{"another version", func(testing.TB, *half) []byte { return header(typeData, 3, 1, 50) }, "ended here"},
		{"another major version", func(testing.TB, *half) []byte { return header(typeData, 2, 3, 50) }, "ended here"},
		{"too long for 1.3", func(testing.TB, *half) []byte { return header(typeData, 3, 3, maxPlain+257) }, "ended here"},
		{"too long", func(testing.TB, *half) []byte { return header(typeData, 3, 3, maxPlain+2049) }, "ended here"},
		{"too much data", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeData, big+"x") }, "ended here"},
		{"too short", func(testing.TB, *half) []byte { return header(typeData, 3, 3, 15) }, "ended here"},
		{"empty", func(testing.TB, *half) []byte { return header(typeData, 3, 3, 0) }, "ended here"},
		{"altered", func(tb testing.TB, h *half) []byte {
			b := sealed(tb, h, typeData, "one", typeData, "two")
			b[len(b)-1] ^= 1
			return b
		}, "ended here"},
		{"a part of a header", func(tb testing.TB, h *half) []byte { return append(sealed(tb, h, typeData, "one"), 23, 3) }, "unexpected EOF"},
		{"a part of a record", func(tb testing.TB, h *half) []byte { return sealed(tb, h, typeData, "one")[:12] }, "unexpected EOF"},
	}
	cfg := plain()
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		for _, c := range cases {
			t.Run(tls.VersionName(version)+" "+c.name, func(t *testing.T) {
				t.Parallel()
				original, moved, client := twins(t, cfg, version)
				if version == tls.VersionTLS12 && strings.Contains(c.name, "KeyUpdate") {
					t.Skip("TLS 1.2 has no KeyUpdate")
				}
				if later := c.name == "many KeyUpdates" || c.name == "two KeyUpdates in a record"; later && strings.HasPrefix(runtime.Version(), "go1.25") {
					t.Skip("crypto/tls of the first releases of Go 1.25 allows it; this package never does")
				}
				got := compare(t, original, moved, c.script(t, &client), 1000)
				if version == tls.VersionTLS13 && c.end != "" && got.end != c.end {
					t.Errorf("ends with %q, want %q", got.end, c.end)
				}
			})
		}
	}
}

func keyUpdateRest(tb testing.TB, h *half) []byte {
	tb.Helper()
	b := sealed(tb, h, typeHandshake, "\x01\x00")
	if err := h.update(); err != nil {
		tb.Fatal(err)
	}
	return append(b, sealed(tb, h, typeData, "new key")...)
}

// FuzzLikeCryptoTLS is TestLikeCryptoTLS with records of any type and content, any padding
// and any damage.
func FuzzLikeCryptoTLS(f *testing.F) {
	f.Add([]byte("\x17\x00\x03one\x16\x80\x05\x18\x00\x00\x01\x01\x17\x00\x03two"), true, uint16(1000), uint32(0))
	f.Add([]byte("\x15\x00\x02\x01\x00"), true, uint16(1), uint32(0))
	f.Add([]byte("\x17\x00\x03one\x15\x00\x02\x02\x50"), false, uint16(2), uint32(0))
	f.Add([]byte("\x17\x00\x03one\x17\x00\x03two"), true, uint16(9), uint32(12<<8|1))
	f.Add([]byte("\x16\x00\x02\x18\x00\x16\x80\x03\x00\x01\x00\x17\x01\x03pad"), true, uint16(9), uint32(0))
	cfg := plain()
	f.Fuzz(func(t *testing.T, in []byte, v13 bool, size uint16, damage uint32) {
		version := uint16(tls.VersionTLS12)
		if v13 {
			version = tls.VersionTLS13
		}
		original, moved, client := twins(t, cfg, version)
		var script, hand []byte
		other := false     // a handshake message that is no KeyUpdate
		for len(in) >= 3 { // a type; a key update, and a padding; a length
			typ, then, n := in[0], in[1], min(int(in[2]), len(in)-3)
			data := append(bytes.Clone(in[3:3+n]), make([]byte, 0, 8)...)
			if typ == typeHandshake {
				hand = append(hand, data...)
				for ; len(hand) >= keyUpdateSize && string(hand[:4]) == "\x18\x00\x00\x01"; hand = hand[keyUpdateSize:] {
				}
				other = other || !v13 || !strings.HasPrefix("\x18\x00\x00\x01", string(hand))
			}
			if pad := int(then & 7); v13 && pad > 0 {
				data, typ = append(append(data, typ), make([]byte, pad-1)...), 0
			}
			in = in[3+n:]
			var err error
			if script, err = client.seal(script, typ, data); err != nil {
				t.Fatal(err)
			}
			if then&0x80 != 0 && v13 {
				if err := client.update(); err != nil {
					t.Fatal(err)
				}
			}
		}
		script = append(script, in...)
		if at := int(damage >> 8); at < len(script) {
			script[at] ^= byte(damage)
		}
		if !other {
			compare(t, original, moved, script, 1+int(size))
			return
		}
		// crypto/tls reads all of another handshake message before it ends the connection.
		want, got := play(original, script, 1+int(size)), play(moved, script, 1+int(size))
		if want.data != got.data {
			t.Errorf("Read returns %q, of crypto/tls %q", got.data, want.data)
		}
	})
}
