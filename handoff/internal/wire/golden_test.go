package wire_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

var update = flag.Bool("update", false, "write the golden frames of the newest version, and the fuzz seeds made of them")

// goldenDir has the golden frames of version v. Those of a version that was
// released never change.
func goldenDir(v uint32) string {
	return filepath.Join("testdata", fmt.Sprintf("v%d", v))
}

// goldenText is a line with the type and lines with the payload.
func goldenText(m wire.Message) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "type %d\n", m.Type())
	payload := wire.Append(nil, m)
	for len(payload) > 0 {
		n := min(32, len(payload))
		fmt.Fprintf(&b, "%x\n", payload[:n])
		payload = payload[n:]
	}
	return b.Bytes()
}

func readGolden(t *testing.T, path string) (wire.Type, []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), "\n")
	var typ wire.Type
	if _, err := fmt.Sscanf(head, "type %d", &typ); err != nil {
		t.Fatalf("%s: %q: %v", path, head, err)
	}
	payload, err := hex.DecodeString(strings.Join(strings.Fields(rest), ""))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return typ, payload
}

func TestGolden(t *testing.T) {
	if *update {
		for _, m := range samples {
			name := m.Type().String()
			write(t, filepath.Join(goldenDir(wire.MaxVersion), name+".hex"), goldenText(m))
			seed := fmt.Sprintf("go test fuzz v1\nuint16(%d)\n[]byte(%q)\n", m.Type(), wire.Append(nil, m))
			write(t, filepath.Join("testdata", "fuzz", "FuzzDecode", name), []byte(seed))
		}
	}
	byName := make(map[string]wire.Message)
	for _, m := range samples {
		byName[m.Type().String()] = m
	}
	for v := wire.MinVersion; v <= wire.MaxVersion; v++ {
		paths, err := filepath.Glob(filepath.Join(goldenDir(v), "*.hex"))
		if err != nil {
			t.Fatal(err)
		}
		if v == wire.MaxVersion && len(paths) != len(samples) {
			t.Errorf("version %d has %d golden frames, want %d", v, len(paths), len(samples))
		}
		for _, path := range paths {
			name := strings.TrimSuffix(filepath.Base(path), ".hex")
			t.Run(fmt.Sprintf("v%d/%s", v, name), func(t *testing.T) {
				want := byName[name]
				typ, payload := readGolden(t, path)
				got, err := wire.Decode(typ, payload)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("decoded (-want +got):\n%s", diff)
				}
				if v == wire.MaxVersion {
					if got := wire.Append(nil, want); !bytes.Equal(got, payload) {
						t.Errorf("encoded %x, want %x", got, payload)
					}
				}
			})
		}
	}
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
