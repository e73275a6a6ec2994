package main

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// A number names a request: the worker that sends it, and how many it had sent
// before.
type number struct {
	worker, seq uint32
}

func (n number) String() string { return strconv.Itoa(int(n.worker)) + "." + strconv.Itoa(int(n.seq)) }

func parseNumber(s string) (number, error) {
	a, b, ok := strings.Cut(s, ".")
	w, err := strconv.ParseUint(a, 10, 32)
	q, err2 := strconv.ParseUint(b, 10, 32)
	if !ok || err != nil || err2 != nil {
		return number{}, errors.New("not a number of a request: " + strconv.Quote(s))
	}
	return number{uint32(w), uint32(q)}, nil
}

// connID names a connection by the addresses of its client and its server: one
// port can have connections to several.
type connID uint64

func connOf(client, server net.Addr) connID {
	h := fnv.New64a()
	_, _ = io.WriteString(h, client.Network()+" "+client.String()+" "+server.String()) // never fails
	return connID(h.Sum64())
}

// entryKind is the kind of an entry in the service's ledger.
type entryKind uint8

const (
	entryHeld   entryKind = iota + 1 // a process got a connection
	entryServed                      // a process answers a request
)

// entry is a record of the service's ledger.
type entry struct {
	kind   entryKind
	pid    uint32
	number number // of entryServed
	conn   connID // of entryHeld
	at     int64  // CLOCK_MONOTONIC, as all times in ledgers
}

const entrySize = 24

func (e entry) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(e.kind))
	b = binary.LittleEndian.AppendUint32(b, e.pid)
	if e.kind == entryHeld {
		b = binary.LittleEndian.AppendUint64(b, uint64(e.conn))
	} else {
		b = binary.LittleEndian.AppendUint32(b, e.number.worker)
		b = binary.LittleEndian.AppendUint32(b, e.number.seq)
	}
	return binary.LittleEndian.AppendUint64(b, uint64(e.at))
}

func parseEntry(b []byte) entry {
	e := entry{
		kind: entryKind(binary.LittleEndian.Uint32(b)),
		pid:  binary.LittleEndian.Uint32(b[4:]),
		at:   int64(binary.LittleEndian.Uint64(b[16:])),
	}
	if e.kind == entryHeld {
		e.conn = connID(binary.LittleEndian.Uint64(b[8:]))
	} else {
		e.number = number{binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])}
	}
	return e
}

// outcome is a record of a client's ledger: what came of a request.
type outcome struct {
	kind       uint8 // index of kinds
	class      uint8 // index of classes; 0 is success
	pid        uint32
	number     number
	conn       connID // on which it began; 0 if none was open
	after      connID // on which it ended, where a library has changed it
	opened     int64  // not later than conn was opened
	start, end int64
}

const outcomeSize = 56

func (o outcome) ok() bool { return o.class == 0 }

// classes are the classes of failures, as a ledger has them.
func classes() []load.Class {
	return []load.Class{"", load.Refused, load.Reset, load.EOF, load.Timeout, load.Wrong, load.Other}
}

func (o outcome) append(b []byte) []byte {
	b = append(b, o.kind, o.class, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, o.pid)
	b = binary.LittleEndian.AppendUint32(b, o.number.worker)
	b = binary.LittleEndian.AppendUint32(b, o.number.seq)
	for _, v := range []uint64{uint64(o.conn), uint64(o.after), uint64(o.opened), uint64(o.start), uint64(o.end)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func parseOutcome(b []byte) outcome {
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	return outcome{
		kind: b[0], class: b[1], pid: binary.LittleEndian.Uint32(b[4:]),
		number: number{binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])},
		conn:   connID(u64(16)), after: connID(u64(24)), opened: int64(u64(32)), start: int64(u64(40)), end: int64(u64(48)),
	}
}

// ledger is a file that records are added to.
type ledger struct{ f *os.File }

func openLedger(path string) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &ledger{f}, err
}

// add writes a record by one write(2): of O_APPEND, so that those of several
// processes don't overwrite each other.
func (l *ledger) add(b []byte) {
	if _, err := l.f.Write(b); err != nil {
		panic(err) // without it nothing can be proved
	}
}

// readRecords reads a ledger from its start.
func readRecords[T any](path string, size int, parse func([]byte) T) ([]T, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b)%size != 0 {
		return nil, errors.New(path + ": a record is cut short")
	}
	records := make([]T, 0, len(b)/size)
	for ; len(b) > 0; b = b[size:] {
		records = append(records, parse(b[:size]))
	}
	return records, nil
}
