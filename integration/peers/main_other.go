//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "peers: not supported: it runs on Linux")
	os.Exit(1)
}
