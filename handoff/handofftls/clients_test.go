package handofftls

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// TestKeyUpdate has clients go to the next key, with and without asking the server to do
// so: before the first move, which then never happens, and between moves.
func TestKeyUpdate(t *testing.T) {
	t.Parallel()
	for _, requested := range []byte{0, 1} {
		t.Run(fmt.Sprintf("requested=%d", requested), func(t *testing.T) {
			t.Parallel()
			p, c := establishPeer(t, plain())
			both(t, p, c, "before")
			p.keyUpdate(t, requested)
			both(t, p, c, "after")
			silence(t, c)
			if err := c.CanMove(); !errors.Is(err, ErrStays) {
				t.Errorf("CanMove() after a KeyUpdate = %v, want ErrStays", err)
			}

			p, c = establishPeer(t, plain())
			c = move(t, c)
			for range 3 {
				before := bytes.Clone(p.l.in.secret)
				p.keyUpdate(t, requested)
				exchange(t, p, c, []byte("under the next key"))
				c = move(t, c)
				exchange(t, c, p, []byte("answer"))
				if answered := !bytes.Equal(before, p.l.in.secret); answered != (requested == 1) {
					t.Errorf("the server has gone to its next key: %t, want %t", answered, requested == 1)
				}
				both(t, p, c, "later")
			}
			// A KeyUpdate in two records.
			m := []byte{24, 0, 0, 1, 0}
			p.send(t, typeHandshake, m[:3], 0)
			eventually(t, "a part of a KeyUpdate is read", func() bool {
				glance(t, c)
				return len(c.layer.hand) > 0
			})
			if err := c.CanMove(); !errors.Is(err, ErrBusy) {
				t.Errorf("CanMove() within a KeyUpdate = %v, want ErrBusy", err)
			}
			p.send(t, typeHandshake, m[3:], 0)
			if err := p.l.out.update(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the rest of the KeyUpdate is read", func() bool {
				glance(t, c)
				return len(c.layer.hand) == 0
			})
			both(t, p, move(t, c), "after all")
		})
	}
}

// TestPadding has a client pad its records, which looks like a KeyUpdate from outside:
// before the first move it stays, later it moves.
func TestPadding(t *testing.T) {
	t.Parallel()
	p, c := establishPeer(t, plain())
	p.send(t, typeData, []byte("padded"), 100)
	exchangeSent(t, c, "padded")
	silence(t, c)
	if err := c.CanMove(); !errors.Is(err, ErrStays) {
		t.Errorf("CanMove() after padding = %v, want ErrStays", err)
	}
	p, c = establishPeer(t, plain())
	c = move(t, c)
	for range 3 {
		p.send(t, typeData, []byte("padded"), 100)
		p.send(t, typeData, nil, 50)
		p.send(t, typeData, bytes.Repeat([]byte("x"), maxPlain), 0)
		exchangeSent(t, c, "padded"+string(bytes.Repeat([]byte("x"), maxPlain)))
		c = move(t, c)
	}
}

// exchangeSent reads what was sent.
func exchangeSent(tb testing.TB, c *Conn, want string) {
	tb.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		tb.Fatalf("read %q, %v, want %q", got[:n], err, want)
	}
}

// TestPieces splits records at each of their bytes, those of the header among them: within
// a record a connection does not move, after it it does, and no byte is lost.
func TestPieces(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("moved=%t", again), func(t *testing.T) {
			t.Parallel()
			p, c := establishPeer(t, plain())
			if again {
				c = move(t, c)
			}
			text := "text"
			for at := 1; at < recordHeader+len(text)+1+tagSize; at++ {
				record := p.seal(t, typeData, []byte(text), 0)
				write(t, p.raw, record[:at])
				untilRead(t, c, at)
				if err := c.CanMove(); !errors.Is(err, ErrBusy) {
					t.Fatalf("CanMove() with %d bytes of a record = %v, want ErrBusy", at, err)
				}
				write(t, p.raw, record[at:])
				exchangeSent(t, c, text)
				if again {
					c = move(t, c)
				} else if err := c.CanMove(); err != nil {
					t.Fatalf("CanMove() after a record in pieces = %v", err)
				}
			}
			both(t, p, move(t, c), "all there")
		})
	}
}

func write(tb testing.TB, w io.Writer, b []byte) {
	tb.Helper()
	if _, err := w.Write(b); err != nil {
		tb.Fatal(err)
	}
}

// untilRead has c read n bytes that bring no data.
func untilRead(tb testing.TB, c *Conn, n int) {
	tb.Helper()
	eventually(tb, fmt.Sprintf("%d bytes of a record are read", n), func() bool {
		glance(tb, c)
		if l := c.layer; l != nil {
			return l.w-l.r == n
		}
		f := &c.tap.in
		if f.left > 0 {
			return recordHeader+int(f.header[3])<<8+int(f.header[4])-f.left == n
		}
		return f.have == n
	})
}

// TestCoalesced has a client send several records, and a part of one, in one segment.
func TestCoalesced(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("moved=%t", again), func(t *testing.T) {
			t.Parallel()
			p, c := establishPeer(t, plain())
			if again {
				c = move(t, c)
			}
			var all []byte
			for _, text := range []string{"one", "two", "three"} {
				all = append(all, p.seal(t, typeData, []byte(text), 0)...)
			}
			last := p.seal(t, typeData, []byte("four"), 0)
			write(t, p.raw, append(all, last[:7]...))
			for _, text := range []string{"o", "ne", "two", "three"} {
				exchangeSent(t, c, text)
				if err := c.CanMove(); !errors.Is(err, ErrBusy) {
					t.Errorf("CanMove() after %q = %v, want ErrBusy", text, err)
				}
			}
			write(t, p.raw, last[7:])
			exchangeSent(t, c, "fou")
			if err := c.CanMove(); !errors.Is(err, ErrBusy) {
				t.Errorf("CanMove() within a record's data = %v, want ErrBusy", err)
			}
			exchangeSent(t, c, "r")
			both(t, p, move(t, c), "all there")
		})
	}
}

// TestReadsEndWithRecords has a client send two records in one segment, to a server that
// has asked whether the connection can move: the second one stays in the kernel, and the
// connection can move between the two.
func TestReadsEndWithRecords(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		p, c := establishPeer(t, plain())
		if again {
			c = move(t, c)
		}
		if err := c.CanMove(); err != nil {
			t.Fatal(err)
		}
		write(t, p.raw, append(p.seal(t, typeData, []byte("one"), 0), p.seal(t, typeData, []byte("two"), 0)...))
		exchangeSent(t, c, "one")
		if err := c.CanMove(); err != nil {
			t.Errorf("moved=%t: CanMove() between two records = %v", again, err)
		}
		exchangeSent(t, c, "two")
		both(t, p, move(t, c), "all there")
	}
}

// TestPipeline has a client that sends without waiting, and a server that moves whenever
// it can, and each time answers what it has read.
func TestPipeline(t *testing.T) {
	t.Parallel()
	tc, c := establish(t, plain(), insecure)
	const requests, size = 3000, 50
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range requests {
			_, _ = fmt.Fprintf(tc, "%0*d", size, i) // the reader reports errors
		}
	})
	wg.Go(func() {
		got := make([]byte, size)
		for i := range requests {
			if _, err := io.ReadFull(tc, got); err != nil || string(got) != fmt.Sprintf("%0*d", size, i) {
				t.Errorf("answer %d: %q, %v", i, got, err)
				_ = tc.Close()
				return
			}
		}
	})
	moves := 0
	buf := make([]byte, size)
	for range requests {
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
		if next, err := tryMove(c); err == nil {
			c, moves = next, moves+1
		} else if !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		if _, err := c.Write(buf); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if moves < requests/100 {
		t.Errorf("%d moves in %d requests: the connection of a client that never waits stays", moves, requests)
	}
	both(t, tc, move(t, c), "the end")
}

// onePiece sends what a client writes after its hello in one piece, when it is opened.
type onePiece struct {
	net.Conn
	hello, open bool
	buf         []byte
}

func (o *onePiece) Write(p []byte) (int, error) {
	if !o.hello || o.open {
		o.hello = true
		return o.Conn.Write(p)
	}
	o.buf = append(o.buf, p...)
	return len(p), nil
}

// TestWithFinished has a client send its first data in one segment with the end of its
// handshake: crypto/tls must not read the data with it, or the count would be wrong.
func TestWithFinished(t *testing.T) {
	t.Parallel()
	client, server := dial(t)
	o := &onePiece{Conn: client}
	tc := tls.Client(o, insecure)
	sent := make(chan error, 1)
	go func() {
		_, err := tc.Write([]byte("first"))
		if err == nil {
			_, err = tc.Write([]byte("second"))
		}
		o.open = true
		if err == nil {
			_, err = client.Write(o.buf)
		}
		sent <- err
	}()
	c, err := Server(t.Context(), server, plain())
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if len(c.tap.ahead) == 0 {
		t.Error("nothing came with the handshake: the test proves nothing")
	}
	if err := c.CanMove(); !errors.Is(err, ErrBusy) {
		t.Errorf("CanMove() = %v, want ErrBusy", err)
	}
	exchangeSent(t, c, "firstsecond")
	both(t, tc, move(t, c), "moved")
}

// TestEnds ends connections in each way, before and after a move: the other end sees what
// it sees of crypto/tls, and nothing moves any more.
func TestEnds(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s moved=%t", tls.VersionName(version), again), func(t *testing.T) {
				t.Parallel()
				start := func() (*tls.Conn, *Conn) {
					tc, c := establish(t, plain(), &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
					if again {
						c = move(t, c)
					}
					return tc, c
				}
				stays := func(c *Conn) {
					t.Helper()
					if err := c.CanMove(); !errors.Is(err, ErrStays) {
						t.Errorf("CanMove() = %v, want ErrStays", err)
					}
				}
				tc, c := start()
				if err := tc.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("Read() after the client's close_notify = %d, %v, want io.EOF", n, err)
				}
				stays(c)
				exchange(t, c, tc, []byte("still")) // the other direction is open

				tc, c = start()
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if n, err := tc.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("the client reads %d, %v after CloseWrite, want io.EOF", n, err)
				}
				exchange(t, tc, c, []byte("still"))
				if _, err := c.Write([]byte("x")); err == nil {
					t.Error("Write() after CloseWrite = nil")
				}
				stays(c)

				tc, c = start()
				_ = tc.NetConn().Close() // no close_notify
				if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("Read() after the end of TCP = %d, %v, want io.EOF, as of crypto/tls", n, err)
				}
				stays(c)

				_, c = start()
				if c.Stay() == nil != again {
					t.Error("Stay() has a *tls.Conn after a move, or none before")
				}
				if !again {
					stays(c)
				}
			})
		}
	}
}
