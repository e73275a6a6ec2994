// Package fdpass sends and receives frames with descriptors over a unix stream
// socket (SCM_RIGHTS, unix(7)).
//
// A frame is a header of 8 bytes, big endian, and a payload:
//
//	bytes 0-3   length of the payload, at most [MaxPayload]
//	bytes 4-5   type, which means nothing here
//	bytes 6-7   number of descriptors, at most [MaxFDs]
//
// The descriptors travel with the header's first byte. A [Conn] never reads
// beyond the frame that it returns, so the connection can be passed on to
// another process between two frames ([Conn.SyscallConn]).
//
// The peer is not trusted: lengths and counts are bounded, memory grows with the
// bytes that arrived and not with those announced, and every descriptor that
// arrives is either returned or closed. The caller's deadlines say how long a peer
// may take.
//
// Linux only. Elsewhere [Conn.Send] and [Conn.Recv] return an error that matches
// [errors.ErrUnsupported].
package fdpass
