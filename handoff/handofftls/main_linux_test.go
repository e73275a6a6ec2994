package handofftls

import (
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){
		"service": serviceMain,
		"probe":   probeMain,
	})
}
