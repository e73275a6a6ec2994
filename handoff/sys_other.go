//go:build !linux

package handoff

import (
	"fmt"
	"net"
	"os"
	"runtime"
)

func unsupported() error {
	return fmt.Errorf("%w on %s: Linux is", ErrUnsupported, runtime.GOOS)
}

func supported() error { return unsupported() }

func spawned() bool { return false }

func unixConn(int) (*net.UnixConn, error) { return nil, unsupported() }

func raise(os.Signal) {}

func descends(int) bool { return true }

func findChild(string) int { return 0 }

func newMailbox() (*os.File, *net.UnixConn, error) { return nil, nil, unsupported() }

func openMailbox(*os.File) (*net.UnixConn, error) { return nil, unsupported() }

func inheritedConversation() (*net.UnixConn, error) { return nil, nil }

func (*config) spawn(*os.File) (*child, *net.UnixConn, error) { return nil, nil, unsupported() }

func (*config) checkInherit() error { return unsupported() }

func (*config) explainText(err error) error { return err }

func (*config) explainInherit(err error) error { return err }

type capture struct{ w *os.File }

func newCapture(*os.File) (*capture, error) { return nil, unsupported() }

func (*capture) fds() []int      { return nil }
func (*capture) passed()         {}
func (*capture) lines() []string { return nil }
func (*capture) close()          {}

type redirect struct{}

func newRedirect([]int, bool) (*redirect, error) { return nil, unsupported() }

func (*redirect) restore() {}
func (*redirect) close()   {}
