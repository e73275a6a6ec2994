//go:build !linux

package main

import (
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) { testmain.Run(m) }
