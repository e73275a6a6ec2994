//go:build !unix

package handoff

func closeOnExec(int) {}
