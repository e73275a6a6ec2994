package handofftls

// The content types of records (RFC 8446 section 5.1).
const (
	typeChangeCipherSpec = 20
	typeAlert            = 21
	typeHandshake        = 22
	typeData             = 23
)

const recordHeader = 5

// A framer counts the records of one direction of a connection, from outside of the
// encryption: a record has a header of five bytes, with its type and length.
type framer struct {
	header [recordHeader]byte
	have   int    // bytes of header
	left   int    // bytes of the record's body that are to come
	count  uint64 // records of type application data, the type of all protected ones in TLS 1.3
	length uint64 // of their bodies
	odd    bool   // a record of another type was there
}

// between reports whether no record has begun and not ended.
func (f *framer) between() bool { return f.have == 0 && f.left == 0 }

// want returns how many bytes the header or body that has begun still needs.
func (f *framer) want() int {
	if f.left > 0 {
		return f.left
	}
	return recordHeader - f.have
}

func (f *framer) pass(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, len(p))
			f.left -= n
			p = p[n:]
			continue
		}
		n := copy(f.header[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have < recordHeader {
			return
		}
		f.have = 0
		f.left = int(f.header[3])<<8 | int(f.header[4])
		if f.header[0] == typeData {
			f.count++
			f.length += uint64(f.left)
		} else {
			f.odd = true
		}
	}
}
