package supervisor_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/cmd/baton/internal/supervisor"
)

func TestParseSocket(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]supervisor.Socket{
		"tcp://:8080":             {Name: "unknown", Network: "tcp", Address: ":8080"},
		"web=tcp4://0.0.0.0:80":   {Name: "web", Network: "tcp4", Address: "0.0.0.0:80"},
		"tcp6://[::1]:0":          {Name: "unknown", Network: "tcp6", Address: "[::1]:0"},
		"dns=udp://127.0.0.1:53":  {Name: "dns", Network: "udp", Address: "127.0.0.1:53"},
		"unix:/run/a=b":           {Name: "unknown", Network: "unix", Address: "/run/a=b"},
		"a.b-c_1=unix:///run/a":   {Name: "a.b-c_1", Network: "unix", Address: "/run/a"},
		"unix:@name":              {Name: "unknown", Network: "unix", Address: "@name"},
		"unixgram:/run/log":       {Name: "unknown", Network: "unixgram", Address: "/run/log"},
		"seq=unixpacket:/run/seq": {Name: "seq", Network: "unixpacket", Address: "/run/seq"},
	} {
		got, err := supervisor.ParseSocket(text)
		if err != nil || got != want {
			t.Errorf("ParseSocket(%q) = %+v, %v, want %+v", text, got, err, want)
		}
		if again, err := supervisor.ParseSocket(got.String()); err != nil || again != want {
			t.Errorf("ParseSocket(%q) = %+v, %v, want %+v", got.String(), again, err, want)
		}
	}
	for _, text := range []string{
		"", ":8080", "tcp", "tcp:", "tcp://", "tcp://host", "tcp:1.2.3.4:5", "sctp://:1", "unix:", "unix:/", "unix:@",
		"unix:a", "=tcp://:1", "a b=tcp://:1", "http://:80",
	} {
		if got, err := supervisor.ParseSocket(text); !errors.Is(err, supervisor.ErrConfig) {
			t.Errorf("ParseSocket(%q) = %+v, %v, want ErrConfig", text, got, err)
		}
	}
}

// FuzzParseSocket reads what may stand on the command line.
func FuzzParseSocket(f *testing.F) {
	for _, text := range []string{"tcp://:8080", "web=tcp6://[::1]:0", "unix:///run/a", "a.b-c_1=unixgram:@x", "unix:/run/a=b", "a=b=tcp://:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := supervisor.ParseSocket(text)
		if err != nil {
			if !errors.Is(err, supervisor.ErrConfig) || s != (supervisor.Socket{}) {
				t.Errorf("ParseSocket(%q) = %+v, %v, want ErrConfig", text, s, err)
			}
			return
		}
		if strings.ContainsAny(s.Name, ":=\x00\n") { // LISTEN_FDNAMES could not tell them apart
			t.Errorf("ParseSocket(%q): name %q", text, s.Name)
		}
		if strings.ContainsRune(s.Address, 0) { // the environment and the kernel end there
			t.Errorf("ParseSocket(%q): address %q", text, s.Address)
		}
		if again, err := supervisor.ParseSocket(s.String()); err != nil || again != s {
			t.Errorf("ParseSocket(%q) = %+v, %v, want %+v as for %q", s.String(), again, err, s, text)
		}
	})
}
