package main

import (
	"bytes"
	"context"
	"io"

	"github.com/emersion/go-smtp"

	"github.com/seed-11c92bf9/baton/handoff"
)

// serveSMTP serves by github.com/emersion/go-smtp. Who sends mail ends the connection with
// QUIT, at the latest.
func serveSMTP(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &mail{}, nil }))
	srv.Domain = "localhost"
	return stay(ctx, up, func() error { return srv.Serve(ln) }, func() {})
}

// mail is a message on its way in.
type mail struct{}

func (*mail) Reset()                               {}
func (*mail) Logout() error                        { return nil }
func (*mail) Mail(string, *smtp.MailOptions) error { return nil }
func (*mail) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (*mail) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return &smtp.SMTPError{Code: 250, Message: answer(bytes.TrimSpace(text))} // the answer of success, with a text of ours
}
