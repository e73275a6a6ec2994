package handoffhttp

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// ticketsPrefix begins the name of the state in which ServeTLS passes keys on.
const ticketsPrefix = "handoffhttp tickets "

// crypto/tls makes a new key each day and takes those of a week, where the
// program sets none (ticketKeyRotation, ticketKeyLifetime).
const (
	ticketRotation = 24 * time.Hour
	ticketLifetime = 7 * ticketRotation
	maxTicketKeys  = 16
)

// ShareTickets passes the session ticket keys of cfg from each process to its successor, as
// a state blob under name (see [handoff.Upgrader.ProvideState]): a client resumes with the
// successor the session that it had with the predecessor. ShareTickets sets cfg's keys and
// its GetConfigForClient. The new GetConfigForClient makes a new key each day, and calls
// the old one. Call ShareTickets before [handoff.Upgrader.Ready], and before cfg is used.
// The keys are only in memory. A process that can read the memory of this one, or that
// joins it as its successor, has them.
//
// It returns an error if it can't read the predecessor's state.
func ShareTickets(up *handoff.Upgrader, name string, cfg *tls.Config) error {
	t := &tickets{cfg: cfg, now: time.Now}
	f, err := up.State(name)
	switch {
	case err == nil:
		b, err := io.ReadAll(io.LimitReader(f, maxTicketKeys*ticketKeySize+1))
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("handoffhttp: session ticket keys: %w", err)
		}
		if t.keys, err = decodeTicketKeys(b); err != nil {
			return err
		}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	t.refresh()
	next := cfg.GetConfigForClient
	cfg.GetConfigForClient = func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
		t.refresh()
		if next != nil {
			return next(chi)
		}
		return nil, nil
	}
	up.ProvideState(name, func(_ context.Context, w io.Writer) error {
		_, err := w.Write(t.encode())
		return err
	})
	return nil
}

// tickets are the session ticket keys of a tls.Config.
type tickets struct {
	now func() time.Time

	mu   sync.Mutex
	cfg  *tls.Config
	keys []ticketKey // the newest first
	set  bool        // in cfg
}

type ticketKey struct {
	made time.Time
	key  [32]byte
}

const ticketKeySize = 8 + 32

// refresh makes a new key if the newest is too old, and drops those past their
// time.
func (t *tickets) refresh() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	fresh := len(t.keys) > 0 && now.Sub(t.keys[0].made) < ticketRotation
	if fresh && t.set {
		return
	}
	if !fresh {
		k := ticketKey{made: now}
		_, _ = rand.Read(k.key[:]) // it never fails (Go 1.24)
		t.keys = append([]ticketKey{k}, t.keys...)
	}
	t.keys = slices.DeleteFunc(t.keys, func(k ticketKey) bool { return now.Sub(k.made) >= ticketLifetime })
	t.keys = t.keys[:min(len(t.keys), maxTicketKeys)]
	raw := make([][32]byte, len(t.keys))
	for i, k := range t.keys {
		raw[i] = k.key
	}
	t.cfg.SetSessionTicketKeys(raw)
	t.set = true
}

func (t *tickets) encode() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b []byte
	for _, k := range t.keys {
		b = binary.BigEndian.AppendUint64(b, uint64(k.made.Unix()))
		b = append(b, k.key[:]...)
	}
	return b
}

var errTicketKeys = errors.New("handoffhttp: malformed session ticket keys from the predecessor")

func decodeTicketKeys(b []byte) ([]ticketKey, error) {
	if len(b)%ticketKeySize != 0 || len(b) > maxTicketKeys*ticketKeySize {
		return nil, errTicketKeys
	}
	var keys []ticketKey
	for ; len(b) > 0; b = b[ticketKeySize:] {
		k := ticketKey{made: time.Unix(int64(binary.BigEndian.Uint64(b)), 0)}
		copy(k.key[:], b[8:])
		keys = append(keys, k)
	}
	return keys, nil
}
