package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	if ran, err := takePart(os.Getenv(envRole), os.Args[1:]); ran {
		if err != nil {
			fmt.Fprintln(os.Stderr, "peers:", err)
			os.Exit(1)
		}
		return
	}
	testmain.Run(m)
}
