package load_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/load"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	op := func(err error) error {
		return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", err)}
	}
	for _, c := range []struct {
		err  error
		want load.Class
	}{
		{nil, ""},
		{op(syscall.ECONNREFUSED), load.Refused},
		{op(syscall.ENOENT), load.Refused},
		{op(syscall.EAGAIN), load.Refused},
		{op(syscall.ECONNRESET), load.Reset},
		{op(syscall.EPIPE), load.Reset},
		{fmt.Errorf("read: %w", io.EOF), load.EOF},
		{io.ErrUnexpectedEOF, load.EOF},
		{errors.New("http: server closed idle connection"), load.EOF},
		{op(os.ErrDeadlineExceeded), load.Timeout},
		{op(syscall.ETIMEDOUT), load.Timeout},
		{context.DeadlineExceeded, load.Timeout},
		{errors.New("surprise"), load.Other},
	} {
		if got := load.Classify(c.err); got != c.want {
			t.Errorf("Classify(%v) = %q, want %q", c.err, got, c.want)
		}
	}
}
