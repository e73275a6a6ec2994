package fdpass

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// chunk is how much memory a payload gets at first, and what is kept for the
// next one.
const chunk = 64 << 10

// Conn sends and receives frames. [Conn.Send] may be called from any goroutine,
// [Conn.Recv] from one at a time (others wait), and both at the same time. Deadlines can
// be set, and [Conn.Close] called, meanwhile.
type Conn struct {
	uc       *net.UnixConn
	patience time.Duration

	writing sync.Mutex
	out     []byte // scratch
	outErr  error  // a frame was cut off: nothing can follow it

	reading sync.Mutex
	in      incoming

	closing sync.Mutex
	closed  bool
}

// incoming is a frame that is being read. After a deadline Recv continues where it
// stopped.
type incoming struct {
	header  [headerSize]byte
	nheader int // bytes of header that have arrived
	payload []byte
	fds     []int
	missing error // ErrTruncated, to be returned at the end of the frame
	fatal   error // returned by each Recv from now on
	oob     []byte
}

// defaultPatience is what [Conn.SetPatience] changes.
const defaultPatience = time.Second

// New returns a Conn on c, which must be a stream, and takes ownership of it.
func New(c *net.UnixConn) *Conn {
	return &Conn{uc: c, patience: defaultPatience}
}

// SetPatience sets for how long Send and Recv repeat a system call that fails in this
// process, for want of memory for one, before they return its error. It is called
// before the first of them.
func (c *Conn) SetPatience(d time.Duration) { c.patience = d }

// Send sends one frame. It borrows payload and fds for the call; the kernel
// keeps its own references to the files in flight. It waits while the socket's
// buffer is full.
//
// Errors: [ErrTooLarge]; [syscall.ETOOMANYREFS] if this process has more
// descriptors in flight than its RLIMIT_NOFILE and no privilege (wait for the
// peer to take some, and try again); [syscall.EPIPE] if the peer is gone;
// [os.ErrDeadlineExceeded]; [net.ErrClosed]. After an error that left a part of
// the frame sent, each Send returns that error; otherwise nothing of the frame
// was sent and the stream stays usable. An error that [Own] reports is returned
// after the patience.
func (c *Conn) Send(typ uint16, payload []byte, fds []int) error {
	if err := supported(); err != nil {
		return err
	}
	if len(payload) > MaxPayload {
		return fmt.Errorf("send %d bytes, limit %d: %w", len(payload), MaxPayload, ErrTooLarge)
	}
	if len(fds) > MaxFDs {
		return fmt.Errorf("send %d descriptors, limit %d: %w", len(fds), MaxFDs, ErrTooLarge)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.outErr != nil {
		return c.outErr
	}
	// Header, descriptors and what fits into a chunk go in one system call.
	first := min(len(payload), chunk-headerSize)
	c.out = appendHeader(c.out[:0], typ, len(payload), len(fds))
	c.out = append(c.out, payload[:first]...)

	again := c.retry()
	n, _, err := c.uc.WriteMsgUnix(c.out, rights(fds), nil)
	for n <= 0 && again.after(err) {
		n, _, err = c.uc.WriteMsgUnix(c.out, rights(fds), nil)
	}
	if err != nil && n <= 0 {
		return sendError(err, len(fds))
	}
	// The kernel has attached the descriptors to the first byte.
	for _, rest := range [][]byte{c.out[n:], payload[first:]} {
		for len(rest) > 0 && (err == nil || again.after(err)) {
			n, err = c.uc.Write(rest)
			rest = rest[n:]
		}
	}
	if err != nil {
		c.outErr = fmt.Errorf("frame cut off: %w", err)
	}
	return c.outErr
}

// Recv waits for the next frame and returns it. The caller owns the frame's
// descriptors; on an error there are none. With [ErrTruncated] comes the rest of
// the frame.
//
// Errors: [io.EOF] if the peer closed the connection after a whole frame,
// [io.ErrUnexpectedEOF] if inside one; [ErrTruncated], after which the next
// frame can be read; [ErrTooLarge] and [ErrMalformed], which end reading for
// good; [os.ErrDeadlineExceeded], after which Recv continues where it stopped,
// also in the middle of a frame; [syscall.ECONNRESET] if the peer closed the
// connection with data in it that it had not read; [net.ErrClosed].
func (c *Conn) Recv() (Frame, error) {
	if err := supported(); err != nil {
		return Frame{}, err
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	in := &c.in
	if in.fatal != nil {
		return Frame{}, in.fatal
	}
	for in.nheader < headerSize {
		if err := c.readHeader(); err != nil {
			return Frame{}, err
		}
	}
	typ, size, _ := parseHeader(in.header[:])
	for len(in.payload) < int(size) {
		if err := c.readPayload(int(size)); err != nil {
			return Frame{}, err
		}
	}
	f := Frame{Type: typ, Payload: in.payload, FDs: in.fds}
	missing := in.missing
	in.reset()
	return f, missing
}

// readHeader reads a part of the header, and checks it when it is complete.
func (c *Conn) readHeader() error {
	in := &c.in
	n, fds, truncated, err := c.read(in.header[in.nheader:])
	in.nheader += n
	in.fds = append(in.fds, fds...)
	if truncated {
		in.missing = truncatedError(c.uc)
	}
	if err != nil {
		return c.readError(err)
	}
	if in.nheader < headerSize {
		return nil
	}
	_, size, want := parseHeader(in.header[:])
	switch got := len(in.fds); {
	case size > MaxPayload:
		return in.fail(fmt.Errorf("%w: %d bytes announced, limit %d", ErrTooLarge, size, MaxPayload))
	case want > MaxFDs:
		return in.fail(fmt.Errorf("%w: %d descriptors announced, limit %d", ErrTooLarge, want, MaxFDs))
	case got > want:
		return in.fail(fmt.Errorf("%w: %d descriptors announced, %d received", ErrMalformed, want, got))
	case in.missing != nil:
		in.missing = fmt.Errorf("%d of %d descriptors received: %w", got, want, in.missing)
		in.closeFDs()
	case got < want:
		in.missing = fmt.Errorf("%d of %d descriptors received: %w (the peer sent no more)", got, want, ErrTruncated)
		in.closeFDs()
	}
	return nil
}

// readPayload reads a part of a payload of size bytes.
func (c *Conn) readPayload(size int) error {
	in := &c.in
	have := len(in.payload)
	if have == cap(in.payload) {
		// Grow with what has arrived, whatever was announced.
		grown := make([]byte, have, min(size, max(2*have, chunk)))
		copy(grown, in.payload)
		in.payload = grown
	}
	n, fds, truncated, err := c.read(in.payload[have:min(size, cap(in.payload))])
	in.payload = in.payload[:have+n]
	if len(fds) > 0 || truncated {
		in.fds = append(in.fds, fds...)
		return in.fail(fmt.Errorf("%w: descriptors in the middle of a payload", ErrMalformed))
	}
	if err != nil {
		return c.readError(err)
	}
	return nil
}

// read reads at most len(p) bytes and the descriptors that come with them.
func (c *Conn) read(p []byte) (n int, fds []int, truncated bool, err error) {
	if c.in.oob == nil {
		c.in.oob = make([]byte, rightsSpace)
	}
	// ReadMsgUnix sets MSG_CMSG_CLOEXEC (net, unixsock_readmsg_cmsg_cloexec.go)
	// and waits through EINTR and EAGAIN.
	again := c.retry()
	n, oobn, flags, _, err := c.uc.ReadMsgUnix(p, c.in.oob)
	for again.after(err) {
		n, oobn, flags, _, err = c.uc.ReadMsgUnix(p, c.in.oob)
	}
	if err != nil {
		return 0, nil, false, err // n may be -1
	}
	fds, truncated, err = parseRights(c.in.oob[:oobn], flags)
	return n, fds, truncated, err
}

// readError gives an error of reading its place: between two frames, or inside
// one. A deadline changes nothing, and a system call that failed has read nothing.
func (c *Conn) readError(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), Own(err):
		return err
	case errors.Is(err, io.EOF) && c.in.nheader == 0:
		return c.in.fail(io.EOF)
	case errors.Is(err, io.EOF):
		return c.in.fail(io.ErrUnexpectedEOF)
	}
	return c.in.fail(err)
}

// fail ends reading for good.
func (in *incoming) fail(err error) error {
	in.closeFDs()
	in.fatal = err
	return err
}

// reset prepares for the next frame. The payload's memory is used again unless
// it is large.
func (in *incoming) reset() {
	in.nheader = 0
	in.fds = nil
	in.missing = nil
	if cap(in.payload) > chunk {
		in.payload = nil
	}
	in.payload = in.payload[:0]
}

func (in *incoming) closeFDs() {
	_ = fdx.Close(in.fds...) // no caller has used them: nothing can be lost
	in.fds = nil
}

// Buffered reports whether a frame is half read, because a deadline stopped Recv
// inside it. It waits for a Recv that is under way.
func (c *Conn) Buffered() bool {
	c.reading.Lock()
	defer c.reading.Unlock()
	return c.in.nheader > 0
}

// SetReadDeadline sets the time after which Recv, also one that waits already,
// returns [os.ErrDeadlineExceeded]; zero means never. No data is lost by it.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.uc.SetReadDeadline(t) }

// SetWriteDeadline sets the same for Send.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.uc.SetWriteDeadline(t) }

// CloseRead has Recv return what has arrived, and then [io.EOF].
func (c *Conn) CloseRead() error { return c.uc.CloseRead() }

// Peer returns the identity of the process that connected.
func (c *Conn) Peer() (fdx.Cred, error) { return fdx.PeerCred(c.uc) }

// errPassed is the answer to each Send and Recv after Dup.
var errPassed = errors.New("the connection was passed on")

// Dup returns a duplicate of the descriptor, with which another Conn, also of another
// process, continues between two frames: c neither sends nor receives from now on. It
// waits for a Send and a Recv that are under way. Where a frame was cut off or is half
// read, or reading has ended, it returns an error, and c stays as it is.
func (c *Conn) Dup() (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.reading.Lock()
	defer c.reading.Unlock()
	switch {
	case c.outErr != nil:
		return -1, c.outErr
	case c.in.fatal != nil:
		return -1, c.in.fatal
	case c.in.nheader > 0:
		return -1, fmt.Errorf("%w: a frame is half read", ErrMalformed)
	}
	fd, err := fdx.Dup(c.uc)
	if err == nil {
		c.outErr, c.in.fatal = errPassed, errPassed
	}
	return fd, err
}

// Close closes the connection and the descriptors of a half-read frame. A Send
// or Recv that is under way returns [net.ErrClosed]. Only the first call does
// something.
func (c *Conn) Close() error {
	c.closing.Lock()
	defer c.closing.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	err := c.uc.Close()
	c.reading.Lock() // Recv returns now
	defer c.reading.Unlock()
	c.in.fail(net.ErrClosed)
	return err
}
