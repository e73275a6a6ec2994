//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "tlsmove: package handoff runs on Linux alone")
	os.Exit(2)
}
