//go:build !unix

package spawn

import (
	"os"
	"os/exec"
)

func ownGroup(*exec.Cmd) {}

func killGroup(p *os.Process) { _ = p.Kill() }

// JoinGroup does nothing here.
func JoinGroup(int) {}
