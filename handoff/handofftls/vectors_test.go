package handofftls

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"strings"
	"testing"
)

// bytesOf reads hexadecimal with spaces.
func bytesOf(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestRFC8448 opens and seals the records of the trace in RFC 8448 section 3.
func TestRFC8448(t *testing.T) {
	t.Parallel()
	s, _ := suiteOf(tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, nil)
	data := make([]byte, 50)
	for i := range data {
		data[i] = byte(i)
	}
	for _, c := range []struct {
		name, secret, iv string
		seq              uint64 // of the first record: the server has sent a ticket
		data, alert      string // records
	}{
		{
			"client", "9e40646ce79a7f9dc05af8889bce6552 875afa0b06df0087f792ebb7c17504a5", "5b78923dee08579033e523d9", 0,
			`17030300 43a23f70 54b62c94 d0affafe 8228ba55 cbefacea 42f914aa 66bcab3f 2b9819a8 a5b46b39 5bd54a9a
			20441e2b 62974e1f 5a6292a2 977014bd 1e3deae6 3aeebb21 694915e4`,
			"17030300 13c98727 60655666 b74d7ff1 153efd6d b6d0b0e3",
		},
		{
			"server", "a11af9f05531f856ad47116b45a95032 8204b4f44bfb6b3a4b4f1f3fcb631643", "cf782b88dd83549aadf1e984", 1,
			`17030300 432e937e 11ef4ac7 40e538ad 36005fc4 a46932fc 3225d05f 82aa1b36 e30efaf9 7d90e6df fc602dcb
			501a59a8 fcc49c4b f2e5f0a2 1c0047c2 abf33254 0dd032e1 67c2955d`,
			"17030300 13b58fd6 7166ebf5 99d24720 cfbe7efa 7a8864a9",
		},
	} {
		open, err := newHalf(tls.VersionTLS13, s, bytesOf(t, c.secret), c.seq)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(open.iv[:], bytesOf(t, c.iv)) {
			t.Errorf("%s: IV %x", c.name, open.iv)
		}
		seal, err := newHalf(tls.VersionTLS13, s, bytesOf(t, c.secret), c.seq)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []struct {
			record  string
			typ     byte
			content []byte
		}{{c.data, typeData, data}, {c.alert, typeAlert, []byte{1, 0}}} {
			record := bytesOf(t, r.record)
			if b, err := seal.seal(nil, r.typ, r.content); err != nil || !bytes.Equal(b, record) {
				t.Errorf("%s: seal() = %x, %v, want %x", c.name, b, err, record)
			}
			if typ, content, err := open.open(bytes.Clone(record)); err != nil || typ != r.typ || !bytes.Equal(content, r.content) {
				t.Errorf("%s: open(%x) = %d, %x, %v", c.name, record, typ, content, err)
			}
		}
	}
}
