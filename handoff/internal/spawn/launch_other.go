//go:build !linux

package spawn

import "os/exec"

func launch(cmd *exec.Cmd, _ []int) error { return cmd.Start() }
