package main

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// addresses are where the service listens.
type addresses struct {
	TCP  string `json:"tcp"`
	Unix string `json:"unix"`
	UDP  string `json:"udp"`
	HTTP string `json:"http"`
}

// The files in a service's folder.
const (
	pidName       = "pid"
	unixName      = "demo.sock"
	addressesName = "addresses.json"
	controlName   = "control/sock" // handoff creates the folder with mode 0700
)

// write writes the addresses into the service's folder, for clients that are started by
// hand. Readers see a whole file.
func (a addresses) write(dir string) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+addressesName)
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, addressesName))
}

func readAddresses(dir string) (addresses, error) {
	var a addresses
	b, err := os.ReadFile(filepath.Join(dir, addressesName))
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(b, &a)
}
