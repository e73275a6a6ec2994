package handofftls

import (
	"errors"
	"sync"
	"time"
)

var errShut = errors.New("handofftls: the connection is closed for writing")

// buffers are for records on their way out. What is put back is encrypted.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// writeLocked writes one record.
func (l *layer) writeLocked(typ byte, data []byte) error {
	if l.moved {
		return ErrMoved // before a sequence number is used
	}
	bp := buffers.Get().(*[]byte)
	defer buffers.Put(bp)
	b, err := l.out.seal((*bp)[:0], typ, data)
	if err != nil {
		return err
	}
	*bp = b[:0]
	_, err = l.raw.Write(b)
	return err
}

// write is Conn.Write.
func (l *layer) write(p []byte) (int, error) {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	sent := 0
	for {
		switch {
		case l.outErr != nil:
			return sent, l.outErr
		case l.closed:
			return sent, errShut
		case len(p) == 0:
			return sent, nil
		}
		n := min(len(p), maxPlain)
		if err := l.writeLocked(typeData, p[:n]); err != nil {
			l.outErr = err // a part of the record may be out
			return sent, err
		}
		sent += n
		p = p[n:]
	}
}

// answerKeyUpdate sends a KeyUpdate and goes to the next key for writing. Where it can't,
// the next Write returns the error, as in crypto/tls.
func (l *layer) answerKeyUpdate() {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if l.outErr != nil || l.closed {
		return // nothing more is written under any key
	}
	err := l.writeLocked(typeHandshake, []byte{messageKeyUpdate, 0, 0, 1, 0})
	if err == nil {
		err = l.out.update()
	}
	l.outErr = err
}

// closeTimeout bounds the time for close_notify, as in crypto/tls.
const closeTimeout = 5 * time.Second

// closeNotify says to the client that nothing more comes.
func (l *layer) closeNotify() error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	return l.closeNotifyLocked()
}

func (l *layer) closeNotifyLocked() error {
	if l.closed || l.outErr != nil {
		return l.outErr
	}
	l.closed = true
	_ = l.raw.SetWriteDeadline(time.Now().Add(closeTimeout)) // fails only on a closed connection, which Write reports
	return l.writeLocked(typeAlert, []byte{1, alertCloseNotify})
}

// end is Conn.Close: it says so to the client, unless a Write is in progress, which it
// interrupts.
func (l *layer) end() error {
	if l.wmu.TryLock() {
		_ = l.closeNotifyLocked() // the connection ends anyway
		l.wmu.Unlock()
	}
	return l.raw.Close()
}
