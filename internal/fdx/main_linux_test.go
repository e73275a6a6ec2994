package fdx_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){
		"raise": func([]string) {
			if err := raise(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		},
	})
}
