package handoffhttp_test

import (
	"bytes"
	"crypto/tls"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

const ticketSize = 40

// TestTickets shows when keys are made, kept and dropped.
func TestTickets(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	clock := func() time.Time { return now }
	first, err := handoffhttp.NewTickets(&tls.Config{}, nil, clock)
	if err != nil {
		t.Fatal(err)
	}
	one := first.Encode()
	if len(one) != ticketSize {
		t.Fatalf("%d bytes at first, want one key", len(one))
	}
	now = now.Add(23 * time.Hour)
	second, err := handoffhttp.NewTickets(&tls.Config{}, one, clock)
	if err != nil {
		t.Fatal(err)
	}
	if got := second.Encode(); !bytes.Equal(got, one) {
		t.Errorf("the successor has other keys within a day")
	}
	now = now.Add(2 * time.Hour)
	second.Refresh()
	two := second.Encode()
	if len(two) != 2*ticketSize || !bytes.Equal(two[ticketSize:], one) {
		t.Errorf("after a day: %d bytes, want a new key in front of the old one", len(two))
	}
	for range 20 {
		now = now.Add(24 * time.Hour)
		second.Refresh()
	}
	week := second.Encode()
	if len(week) != 7*ticketSize {
		t.Errorf("after weeks: %d bytes, want the keys of 7 days", len(week))
	}
	if bytes.Contains(week, one[8:]) {
		t.Error("the first key is still there")
	}
	for _, bad := range [][]byte{one[:39], make([]byte, 17*ticketSize)} {
		if _, err := handoffhttp.NewTickets(&tls.Config{}, bad, clock); err == nil {
			t.Errorf("%d bytes are taken for keys", len(bad))
		}
	}
}
