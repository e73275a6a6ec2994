package trust_test

import (
	"os"
	"strconv"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/internal/trust"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){
		// user exits with 0 if the process trusts the user args[0].
		"user": func(args []string) {
			uid, err := strconv.Atoi(args[0])
			if err != nil || !trust.User(uid) {
				os.Exit(1)
			}
		},
	})
}
