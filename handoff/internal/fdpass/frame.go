package fdpass

import "encoding/binary"

const (
	// MaxPayload is the largest payload of a frame, in bytes.
	MaxPayload = 1 << 20

	// MaxFDs is the largest number of descriptors in a frame, SCM_MAX_FD of
	// unix(7): sendmsg(2) refuses more with EINVAL.
	MaxFDs = 253

	headerSize = 8
)

// Frame is one received frame.
type Frame struct {
	Type    uint16
	Payload []byte // valid until the next Recv
	FDs     []int  // close-on-exec; the caller closes them
}

func appendHeader(b []byte, typ uint16, payload, fds int) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(payload))
	b = binary.BigEndian.AppendUint16(b, typ)
	return binary.BigEndian.AppendUint16(b, uint16(fds))
}

func parseHeader(b []byte) (typ uint16, payload uint32, fds int) {
	return binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint32(b[0:]), int(binary.BigEndian.Uint16(b[6:]))
}
