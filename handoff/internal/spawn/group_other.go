//go:build !unix

package spawn

import "os/exec"

func ownGroup(*exec.Cmd) {}

func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

// JoinGroup does nothing here.
func JoinGroup(int) {}
