package supervisor_test

import (
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/cmd/baton/internal/supervisor"
)

func TestParseNews(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]supervisor.News{
		"":                             {},
		"READY=1":                      {Ready: true},
		"READY=0":                      {},
		"STATUS=a=b\nREADY=1\n":        {Ready: true, Status: "a=b"},
		"STOPPING=1":                   {Stopping: true},
		"MAINPID=12\nMAINPIDFDID=7":    {MainPID: 12},
		"MAINPID=x":                    {},
		"EXTEND_TIMEOUT_USEC=1500000":  {Extend: 1500 * time.Millisecond},
		"EXTEND_TIMEOUT_USEC=-1":       {},
		"EXTEND_TIMEOUT_USEC=99999999": {Extend: 99999999 * time.Microsecond},
		// No app may extend its time without limit.
		"EXTEND_TIMEOUT_USEC=18446744073709551615": {},
		"EXTEND_TIMEOUT_USEC=9223372036854775807":  {},
		"FDSTORE=1\nFDNAME=x\n=\n\n\x00":           {},
	} {
		if got := supervisor.ParseNews(text); got != want {
			t.Errorf("ParseNews(%q) = %+v, want %+v", text, got, want)
		}
	}
}

func FuzzParseNews(f *testing.F) {
	f.Add("READY=1\nMAINPID=1\nEXTEND_TIMEOUT_USEC=5")
	f.Fuzz(func(t *testing.T, text string) {
		if n := supervisor.ParseNews(text); n.Extend < 0 || n.Extend >= 24*time.Hour {
			t.Errorf("ParseNews(%q) extends by %v", text, n.Extend)
		}
	})
}
