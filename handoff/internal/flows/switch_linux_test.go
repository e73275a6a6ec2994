package flows

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
)

// wantNew wants new flows to come to a set.
func wantNew(t *testing.T, when string, want *Set, others ...*Set) {
	t.Helper()
	if got := send(t, dialer(t, "udp", "127.0.0.1:0"), packetOf(t, nil), append([]*Set{want}, others...)...); got != 0 {
		t.Errorf("%s: a new flow came to set %d, want 0", when, got)
	}
}

// TestStoppedInSwitch has a process stop in its switch and go on after newer ones: it
// leaves no older program behind. Each stop is where the process had done a part.
func TestStoppedInSwitch(t *testing.T) {
	t.Parallel()
	t.Run("before the table", func(t *testing.T) {
		t.Parallel()
		ass, a := firstSets(t, "udp", "127.0.0.1:0", Choice{IDs: quicIDs})
		_, b := next(t, ass)
		// b has the turn, has read the state, and stops.
		if ok, err := b.t.take(stateAt); !ok || err != nil {
			t.Fatal(ok, err)
		}
		was, err := b.t.state()
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Serve(); err != nil { // the predecessor has given b up
			t.Fatal(err)
		}
		if b.t.swap(was, state{was.turn + 1, b.lane}) {
			t.Error("a process that has gone on has changed a newer state")
		}
		if err := b.t.giveBack(stateAt); err != nil {
			t.Fatal(err)
		}
		wantNew(t, "after the stop", a, b)
		// Neither does b, which does not know, when it begins later.
		if err := b.Serve(); !errors.Is(err, errTaken) {
			t.Errorf("Serve() of a successor that was given up = %v, want errTaken", err)
		}
		wantNew(t, "after Serve", a, b)
	})
	t.Run("before the program", func(t *testing.T) {
		t.Parallel()
		ass, a := firstSets(t, "udp", "127.0.0.1:0", Choice{IDs: quicIDs})
		_, b := next(t, ass)
		// b has changed the table, has the program ready, and stops.
		was, err := b.t.state()
		if err != nil {
			t.Fatal(err)
		}
		if !b.t.swap(was, state{was.turn + 1, b.lane}) {
			t.Fatal("swap() = false")
		}
		older, err := b.route(b.lane)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Serve(); err != nil {
			t.Fatal(err)
		}
		_, c := next(t, ass)
		if err := errors.Join(c.Serve(), c.Own()); err != nil {
			t.Fatal(err)
		}
		// It goes on: what it attaches is older, and it sees that.
		if err := b.g.attach(older); err != nil {
			t.Fatal(err)
		}
		wantNew(t, "with the older program", b, a, c) // or the test can't fail
		if err := b.attach(); err != nil {
			t.Fatal(err)
		}
		wantNew(t, "with the newer program", c, a, b)
		if err := b.Undo(); err != nil {
			t.Fatal(err)
		}
		wantNew(t, "after Undo of the older switch", c, a, b)
	})
	t.Run("while others change what it has read", func(t *testing.T) {
		t.Parallel()
		ass, a := firstSets(t, "udp", "127.0.0.1:0", Choice{})
		_, b, err := nextSets(t, ass, Choice{})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Serve(); err != nil {
			t.Fatal(err)
		}
		client := dialer(t, "udp", "127.0.0.1:0")
		changes := a.t.changes()
		if err := a.Keep(client.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
			t.Fatal(err)
		}
		if a.t.changes() == changes {
			t.Error("a process that attaches its program does not see that a flow was kept")
		}
	})
}

// TestOwn has a successor keep the address: a predecessor that was stopped, and does not
// know of the commit, gets nothing back.
func TestOwn(t *testing.T) {
	t.Parallel()
	ass, a := firstSets(t, "udp", "127.0.0.1:0", Choice{IDs: quicIDs})
	bss, b := next(t, ass)
	if err := errors.Join(bss.Serve(), bss.Own()); err != nil {
		t.Fatal(err)
	}
	if err := ass.Serve(); !errors.Is(err, errTaken) {
		t.Errorf("Serve() of the predecessor after the commit = %v, want errTaken", err)
	}
	wantNew(t, "after the commit", b, a)
	// The next successor is b's, and b can take the address back from it, as often as it likes.
	for range 3 {
		css, c := next(t, bss)
		if err := css.Serve(); err != nil {
			t.Fatal(err)
		}
		wantNew(t, "in the next probation", c, a, b)
		if err := errors.Join(bss.Serve(), bss.Serve()); err != nil {
			t.Fatal(err)
		}
		wantNew(t, "after the next rollback", b, a, c)
		if err := css.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// So it can where the successor has given the address back itself.
	css, c := next(t, bss)
	if err := errors.Join(css.Serve(), css.Undo(), bss.Serve()); err != nil {
		t.Fatal(err)
	}
	wantNew(t, "after Undo and Serve", b, a, c)
	_, d := next(t, bss)
	if err := errors.Join(d.Serve(), b.Serve()); err != nil {
		t.Fatal(err)
	}
	wantNew(t, "after another rollback", b, a, c, d)
}

// TestTurn has a process stop with the lock of the switch: others go ahead without it.
func TestTurn(t *testing.T) {
	t.Parallel()
	ass, a := firstSets(t, "udp", "127.0.0.1:0", Choice{IDs: quicIDs})
	_, b := next(t, ass)
	if ok, err := a.t.take(stateAt); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := b.Serve(); err != nil {
		t.Fatal(err)
	}
	wantNew(t, "without the lock", b, a)
}

// anew is a process that has nothing of the others, and starts on the address of s.
func anew(t *testing.T, s *Set, c Choice) (*Sets, *Set, error) {
	t.Helper()
	ss := new(Sets)
	t.Cleanup(func() {
		if err := ss.Close(); err != nil {
			t.Error(err)
		}
	})
	n, err := ss.Listen(t.Context(), net.ListenConfig{}, Key{"udp", s.Conn().LocalAddr().String()}, c, none)
	return ss, n, err
}

// TestAnew ends the process that serves while predecessors linger: a process that starts
// anew gets the lanes from one of them, and their flows stay theirs.
func TestAnew(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", ":0"} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			ass, a := firstSets(t, "udp", address, Choice{IDs: quicIDs})
			bss, b := next(t, ass)
			if err := errors.Join(bss.Serve(), bss.Own()); err != nil {
				t.Fatal(err)
			}
			ass.Offer()
			if _, _, err := anew(t, a, Choice{IDs: quicIDs}); !errors.Is(err, syscall.EADDRINUSE) || !errors.Is(err, errServes) {
				t.Errorf("Listen() beside a process that serves = %v, want EADDRINUSE and errServes", err)
			}
			if err := bss.Close(); err != nil {
				t.Fatal(err)
			}
			client := dialer(t, "udp", "127.0.0.1:0")
			css, c, err := anew(t, a, Choice{IDs: quicIDs})
			if err != nil {
				t.Fatal(err)
			}
			if c.lane != b.lane || c.blind != "" || c.alone != "" {
				t.Errorf("lane %d, not verified %q, alone %q: want lane %d", c.lane, c.blind, c.alone, b.lane)
			}
			wantNew(t, "anew", c, a)
			if got := send(t, client, packetOf(t, a), a, c); got != 0 {
				t.Errorf("a flow of the process that lingers came to %d", got)
			}
			if _, _, err := anew(t, a, Choice{IDs: quicIDs}); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("Listen() of a second one = %v, want EADDRINUSE", err)
			}
			// It has successors, which linger, and give as well.
			dss, d := next(t, css)
			if err := errors.Join(dss.Serve(), dss.Own()); err != nil {
				t.Fatal(err)
			}
			css.Offer()
			if err := errors.Join(ass.Close(), dss.Close()); err != nil {
				t.Fatal(err)
			}
			_, e, err := anew(t, c, Choice{IDs: quicIDs})
			if err != nil {
				t.Fatal(err)
			}
			if got := send(t, client, packetOf(t, c), c, e); got != 0 || e.lane != d.lane {
				t.Errorf("lane %d, and a flow of the process that lingers came to %d", e.lane, got)
			}
		})
	}
}

// TestAnewMismatch has a process that starts anew describe the IDs in another way, and one
// after the end of all others.
func TestAnewMismatch(t *testing.T) {
	t.Parallel()
	ass, a := firstSets(t, "udp", "127.0.0.1:0", Choice{IDs: quicIDs})
	bss, b := next(t, ass)
	if err := b.Serve(); err != nil {
		t.Fatal(err)
	}
	ass.Offer()
	if err := bss.Close(); err != nil {
		t.Fatal(err)
	}
	other := Choice{IDs: IDs{Len: 8, Forms: quicIDs.Forms}}
	if _, _, err := anew(t, a, other); err == nil || !strings.Contains(err.Error(), "keep the form") {
		t.Errorf("Listen() with other IDs = %v, want ErrMismatch", err)
	}
	if err := ass.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := anew(t, a, other); err != nil {
		t.Errorf("Listen() after the end of all = %v", err)
	}
}

// TestAnewBesideUnlocked wants no lanes to be given away where a process without a lock,
// that had a plain socket before, serves.
func TestAnewBesideUnlocked(t *testing.T) {
	t.Parallel()
	old := dialer(t, "udp", "127.0.0.1:0")
	var ss Sets
	defer ss.Close()
	k := Key{"udp", old.LocalAddr().String()}
	s, err := ss.Listen(t.Context(), net.ListenConfig{}, k, Choice{IDs: quicIDs}, func() (syscall.Conn, bool, error) { return old, true, nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ss.Serve(), ss.Undo()); err != nil {
		t.Fatal(err)
	}
	ss.Offer()
	if _, _, err := anew(t, s, Choice{IDs: quicIDs}); !errors.Is(err, errServes) {
		t.Errorf("Listen() = %v, want errServes", err)
	}
}
