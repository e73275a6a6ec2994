package handofftls

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// TestFIPS has processes in FIPS 140-3 mode: nothing moves, the reason is given, and
// connections are served.
func TestFIPS(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"off", "on", "only"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			cmd := testmain.Command(t, "probe")
			cmd.Env = append(cmd.Env, "GODEBUG=fips140="+mode)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var probed, served report
			d := json.NewDecoder(bytes.NewReader(out))
			if err := d.Decode(&probed); err != nil {
				t.Fatal(err)
			}
			if err := d.Decode(&served); err != nil {
				t.Fatal(err)
			}
			if on := mode != "off"; strings.Contains(probed.Err, "FIPS 140-3 mode") != on || probed.Err == "" == on {
				t.Errorf("Probe() = %q", probed.Err)
			}
			if want := mode == "off"; strings.Contains(served.Err, "CanMove() = <nil>") != want || served.Err == "" == want {
				t.Errorf("a connection: %q", served.Err)
			}
		})
	}
}
