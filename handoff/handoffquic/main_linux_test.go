package handoffquic_test

import (
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/handoffquic/internal/rig"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){"service": rig.ServiceMain, "clients": rig.ClientsMain, "web": webMain})
}
