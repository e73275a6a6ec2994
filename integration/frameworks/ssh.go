package main

import (
	"context"
	"crypto/ed25519"
	"io"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"github.com/seed-11c92bf9/baton/handoff"
)

// serveSSH serves by github.com/gliderlabs/ssh. A session stays with its process. A
// service reads its host key from a file, since clients must find the same key after an
// upgrade; this one makes it of zeros.
func serveSSH(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	key, err := gossh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		return err
	}
	srv := &ssh.Server{Handler: func(s ssh.Session) {
		_, _ = io.WriteString(s, answer([]byte(s.RawCommand()))) // the client has gone, or not
	}}
	srv.AddHostKey(key)
	return stay(ctx, up, func() error { return srv.Serve(ln) }, func() {})
}
