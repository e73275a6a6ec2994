//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "containers: not supported: it runs on Linux")
	os.Exit(1)
}
