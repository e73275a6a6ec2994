package handofftls

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

const (
	maxPlain    = 16384 // bytes of data in a record (RFC 8446 section 5.1)
	maxUseless  = 16    // records without data in a row, as in crypto/tls
	firstBuffer = 1024

	messageKeyUpdate = 24 // with one byte, whether the other end shall answer
	keyUpdateSize    = 5
)

// The alerts that are sent (RFC 8446 section 6).
const (
	alertCloseNotify       = 0
	alertUnexpectedMessage = 10
	alertBadRecordMAC      = 20
	alertRecordOverflow    = 22
	alertDecodeError       = 50
	alertProtocolVersion   = 70
	alertInternalError     = 80
	alertUserCanceled      = 90
)

// A layer is the record layer of a connection that has moved. It does what crypto/tls does
// after the handshake, for a server.
type layer struct {
	raw     net.Conn
	version uint16

	mu      sync.Mutex // for reading
	in      half
	buf     []byte // buf[r:w] was read and not used
	r, w    int
	plain   []byte // data that Read has not returned, in buf
	hand    []byte // a part of a handshake message
	inErr   error  // for good
	useless int
	exact   bool // nothing is read beyond the end of a header or record

	wmu    sync.Mutex // for writing; after mu
	out    half
	outErr error // for good
	closed bool  // close_notify was sent
	moved  bool  // nothing is written
}

// read is Conn.Read.
func (l *layer) read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for len(l.plain) == 0 {
		if err := l.record(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.plain)
	l.plain = l.plain[n:]
	// As crypto/tls does: the end comes with the last data, where it is known.
	if len(l.plain) == 0 && l.r < l.w && l.buf[l.r] == typeAlert {
		if err := l.record(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// fill reads until n bytes are in buf. What was read stays there if it can't.
func (l *layer) fill(n int) error {
	if l.w-l.r >= n {
		return nil
	}
	if l.r > 0 {
		l.w = copy(l.buf, l.buf[l.r:l.w])
		l.r = 0
	}
	if len(l.buf) < n {
		b := make([]byte, max(n, firstBuffer))
		copy(b, l.buf[:l.w])
		l.buf = b
	}
	for l.w < n {
		most := len(l.buf)
		if l.exact {
			most = n
		}
		m, err := l.raw.Read(l.buf[l.w:most])
		l.w += m
		if l.w >= n {
			return nil // an error comes again
		}
		if err == io.EOF && l.w > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			var ne net.Error
			if !errors.As(err, &ne) || !ne.Timeout() {
				l.inErr = err
			}
			return err
		}
	}
	return nil
}

// record reads one record. It is called when plain is empty.
func (l *layer) record() error {
	if l.inErr != nil {
		return l.inErr
	}
	if err := l.fill(recordHeader); err != nil {
		return err
	}
	header := l.buf[l.r : l.r+recordHeader]
	if header[1] != 3 || header[2] != 3 {
		return l.fail(alertProtocolVersion, fmt.Errorf("handofftls: a record has version %x", header[1:3]))
	}
	n := int(header[3])<<8 | int(header[4])
	if most := maxPlain + 2048; n > most || l.version == tls.VersionTLS13 && n > maxPlain+256 {
		return l.fail(alertRecordOverflow, errTooLong)
	}
	if err := l.fill(recordHeader + n); err != nil {
		return err
	}
	record := l.buf[l.r : l.r+recordHeader+n]
	l.r += len(record)
	if l.version == tls.VersionTLS13 && record[0] == typeChangeCipherSpec {
		return l.message(typeChangeCipherSpec, record[recordHeader:])
	}
	typ, data, err := l.in.open(record)
	if err == nil && l.version == tls.VersionTLS13 && record[0] != typeData {
		return l.fail(alertUnexpectedMessage, fmt.Errorf("handofftls: a record in the clear has type %d", record[0]))
	}
	switch {
	case errors.Is(err, errNoType):
		return l.fail(alertUnexpectedMessage, err)
	case errors.Is(err, errTooLong):
		return l.fail(alertRecordOverflow, err)
	case errors.Is(err, errMAC):
		return l.fail(alertBadRecordMAC, err)
	case err != nil:
		return l.fail(alertInternalError, err)
	}
	return l.message(typ, data)
}

// message handles the content of a record.
func (l *layer) message(typ byte, data []byte) error {
	if typ != typeHandshake && len(l.hand) > 0 {
		return l.fail(alertUnexpectedMessage, errors.New("handofftls: a record is within a handshake message"))
	}
	switch typ {
	case typeData:
		if len(data) == 0 {
			return l.ignore()
		}
		l.useless = 0
		l.plain = data
		return nil
	case typeAlert:
		return l.alert(data)
	case typeHandshake:
		return l.handshake(data)
	case typeChangeCipherSpec:
		return l.changeCipherSpec(data)
	}
	return l.fail(alertUnexpectedMessage, fmt.Errorf("handofftls: a record has type %d", typ))
}

// changeCipherSpec is ignored in TLS 1.3, encrypted or not, as crypto/tls does also after
// the handshake.
func (l *layer) changeCipherSpec(data []byte) error {
	switch {
	case len(data) != 1 || data[0] != 1:
		return l.fail(alertDecodeError, errors.New("handofftls: malformed change_cipher_spec"))
	case l.version != tls.VersionTLS13:
		return l.fail(alertUnexpectedMessage, errors.New("handofftls: change_cipher_spec after the handshake"))
	}
	return l.ignore()
}

func (l *layer) alert(data []byte) error {
	switch {
	case len(data) != 2:
		return l.fail(alertUnexpectedMessage, errors.New("handofftls: malformed alert"))
	case data[1] == alertCloseNotify:
		l.inErr = io.EOF
	case l.version == tls.VersionTLS13 && data[1] == alertUserCanceled, l.version == tls.VersionTLS12 && data[0] == 1:
		return l.ignore() // a warning
	case l.version == tls.VersionTLS12 && data[0] != 2:
		return l.fail(alertUnexpectedMessage, errors.New("handofftls: malformed alert"))
	default:
		l.inErr = &net.OpError{Op: "remote error", Err: tls.AlertError(data[1])}
	}
	return l.inErr
}

// handshake handles KeyUpdate, the only message that a client may send after the
// handshake. In TLS 1.2 it may send none: a second handshake is refused, as by crypto/tls.
func (l *layer) handshake(data []byte) error {
	if l.version != tls.VersionTLS13 || len(data) == 0 {
		return l.fail(alertUnexpectedMessage, errors.New("handofftls: unexpected handshake message"))
	}
	l.hand = append(l.hand, data...)
	m := l.hand
	if m[0] != messageKeyUpdate {
		return l.fail(alertUnexpectedMessage, fmt.Errorf("handofftls: a handshake message has type %d", m[0]))
	}
	if !bytes.HasPrefix([]byte{messageKeyUpdate, 0, 0, 1}, m[:min(len(m), 4)]) || len(m) >= keyUpdateSize && m[4] > 1 {
		return l.fail(alertDecodeError, errors.New("handofftls: malformed KeyUpdate"))
	}
	if len(m) < keyUpdateSize {
		return nil // the rest comes in another record
	}
	l.hand = nil
	if err := l.ignore(); err != nil {
		return err
	}
	if m[4] == 1 {
		l.answerKeyUpdate()
	}
	if len(m) > keyUpdateSize { // it would be under the next key
		return l.fail(alertUnexpectedMessage, errors.New("handofftls: data follows KeyUpdate in its record"))
	}
	if err := l.in.update(); err != nil {
		return l.fail(alertInternalError, err)
	}
	return nil
}

// ignore counts records that bring no data: a client must not keep the server busy.
func (l *layer) ignore() error {
	if l.useless++; l.useless > maxUseless {
		return l.fail(alertUnexpectedMessage, errors.New("handofftls: too many records without data"))
	}
	return nil
}

// fail ends the connection in both directions, with an alert.
func (l *layer) fail(alert byte, err error) error {
	l.inErr = err
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if l.outErr == nil {
		_ = l.writeLocked(typeAlert, []byte{2, alert}) // the connection ends anyway
		l.outErr = err
	}
	return err
}

// idle reports why the connection can't move now. The caller holds mu and wmu.
func (l *layer) idle() error {
	switch {
	case l.inErr != nil || l.outErr != nil || l.closed:
		return stays("it has ended")
	case len(l.plain) > 0 || len(l.hand) > 0 || l.r != l.w:
		return ErrBusy
	}
	return nil
}
