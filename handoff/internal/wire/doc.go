// Package wire holds the messages that a predecessor and its successor exchange
// while sockets change hands, their encoding, and the choice of a protocol
// version. It is pure: no input or output, no clock, no state. All of it may be
// used from any goroutine.
//
// # Frames
//
// The conversation is a sequence of frames on a unix stream socket. A frame is a
// header of 8 bytes, big endian:
//
//	bytes 0-3   length of the payload, at most [MaxPayload]
//	bytes 4-5   type of the message, a [Type]
//	bytes 6-7   number of descriptors that travel with the frame, at most [MaxEntries]
//
// and the payload. The descriptors are SCM_RIGHTS ancillary data of the header's
// first byte. Package fdpass reads and writes frames; this package knows only
// type and payload.
//
// # Payload
//
// A payload is a sequence of fields. A field is
//
//	tag     uvarint, from 1 on
//	length  uvarint, of the value in bytes
//	value   length bytes
//
// where uvarint is base 128, least significant group first, with the high bit
// set in all bytes but the last ([encoding/binary]). The fields come in
// ascending order of their tags. Only a list has a tag more than once: once for
// each element, in order.
//
// A value is, by the type of its struct field,
//
//	unsigned integer   big endian, without leading zeros, at most 8 bytes
//	signed integer     as the unsigned integer (n << 1) ^ (n >> 63)
//	bool               as the unsigned integer 0 or 1
//	duration           as a signed integer, nanoseconds
//	string, bytes      as they are; a string need not be UTF-8
//	struct             a sequence of fields
//
// A field with its zero value is left out, and one that is missing has its zero
// value. The elements of a list are always written, with length 0 if need be.
// The tags are the numbers in the struct tags of the messages; a number is never
// used again for something else, and the type of a field never changes.
//
// # Compatibility
//
// A reader skips fields whose tag it doesn't know, in structs too, and may skip
// messages whose type it doesn't know ([ErrUnknownType]). So a field or a message
// may be added at any time; a peer that must know whether the other understands
// it asks for a new version. Hello, Welcome, Refuse, Request and Response keep
// their fields in all versions. The successor names in Hello the oldest and the
// newest version that it speaks, as an operator's tool does in Request; the
// predecessor answers with the newest one that both do ([Choose]), or refuses
// with [failure.Version].
//
// # Bounds
//
// What is longer than the limits of this package allow is refused as a whole
// with [ErrTooLarge]; what breaks the rules above, with [ErrMalformed]. Decoding
// takes memory in proportion to the payload, plus at most [MaxEntries] structs.
package wire
