package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"

	"connectrpc.com/connect"
	"github.com/coder/websocket"
	"github.com/miekg/dns"
	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A dialog is a client's connection.
type dialog struct {
	// ask sends a request, once, and returns its answer. last says that the server wants
	// the connection to end.
	ask   func(ctx context.Context, token string) (answer string, last bool, err error)
	close func() error
}

// A web is a connection of HTTP that sends each request once. It is connect's client,
// too.
type web struct {
	nc   net.Conn
	in   *bufio.Reader
	last bool // the server ends the connection
}

func dialWeb(ctx context.Context, address string) (*web, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &web{nc: nc, in: bufio.NewReader(nc)}, nil
}

// Do sends a request and returns its response.
func (w *web) Do(r *http.Request) (*http.Response, error) {
	if err := r.Write(w.nc); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(w.in, r)
	if err == nil {
		w.last = resp.Close
	}
	return resp, err
}

func openWeb(ctx context.Context, address string) (*dialog, error) {
	w, err := dialWeb(ctx, address)
	if err != nil {
		return nil, err
	}
	return &dialog{close: w.nc.Close, ask: func(ctx context.Context, token string) (string, bool, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/", strings.NewReader(token))
		if err != nil {
			return "", false, err
		}
		resp, err := w.Do(r)
		if err != nil {
			return "", false, err
		}
		text, err := io.ReadAll(resp.Body)
		return string(text), w.last, err
	}}, nil
}

func openConnect(ctx context.Context, address string) (*dialog, error) {
	w, err := dialWeb(ctx, address)
	if err != nil {
		return nil, err
	}
	client := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](w, "http://"+address+procedure)
	return &dialog{close: w.nc.Close, ask: func(ctx context.Context, token string) (string, bool, error) {
		resp, err := client.CallUnary(ctx, connect.NewRequest(wrapperspb.String(token)))
		if err != nil {
			return "", false, err
		}
		return resp.Msg.GetValue(), w.last, nil
	}}, nil
}

func openWebSocket(ctx context.Context, address string) (*dialog, error) {
	c, _, err := websocket.Dial(ctx, "ws://"+address+"/", nil)
	if err != nil {
		return nil, err
	}
	return &dialog{
		close: func() error { return c.Close(websocket.StatusNormalClosure, "") },
		ask: func(ctx context.Context, token string) (answer string, last bool, err error) {
			if err := c.Write(ctx, websocket.MessageText, []byte(token)); err != nil {
				return "", false, err
			}
			for {
				_, message, err := c.Read(ctx)
				if err != nil || string(message) != reconnect {
					return string(message), last, err
				}
				last = true
			}
		},
	}, nil
}

func openDNS(network string) func(context.Context, string) (*dialog, error) {
	return func(ctx context.Context, address string) (*dialog, error) {
		client := &dns.Client{Net: network, Timeout: patience}
		c, err := client.DialContext(ctx, address)
		if err != nil {
			return nil, err
		}
		return &dialog{close: c.Close, ask: func(ctx context.Context, token string) (string, bool, error) {
			m := new(dns.Msg)
			m.SetQuestion(token+".", dns.TypeTXT)
			got, _, err := client.ExchangeWithConnContext(ctx, m, c)
			if err != nil {
				return "", false, err
			}
			if len(got.Answer) != 1 {
				return "", false, fmt.Errorf("answer %v", got)
			}
			txt, ok := got.Answer[0].(*dns.TXT)
			if !ok {
				return "", false, fmt.Errorf("answer %v", got)
			}
			return strings.TrimSuffix(txt.Txt[0], "."), false, nil
		}}, nil
	}
}

func openSSH(_ context.Context, address string) (*dialog, error) {
	c, err := ssh.Dial("tcp", address, &ssh.ClientConfig{User: "user", HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: patience})
	if err != nil {
		return nil, err
	}
	return &dialog{close: c.Close, ask: func(_ context.Context, token string) (string, bool, error) {
		session, err := c.NewSession()
		if err != nil {
			return "", false, err
		}
		text, err := session.Output(token)
		if cerr := session.Close(); cerr != nil && !errors.Is(cerr, io.EOF) {
			err = errors.Join(err, cerr)
		}
		return string(text), false, err
	}}, nil
}

func openSMTP(_ context.Context, address string) (*dialog, error) {
	c, err := textproto.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	// say sends a line and returns the text of the answer.
	say := func(code int, format string, args ...any) (string, error) {
		if err := c.PrintfLine(format, args...); err != nil {
			return "", err
		}
		_, text, err := c.ReadResponse(code)
		return text, err
	}
	if _, _, err = c.ReadResponse(220); err == nil {
		_, err = say(250, "EHLO localhost")
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &dialog{
		close: func() error {
			_, err := say(221, "QUIT")
			return errors.Join(err, c.Close())
		},
		ask: func(_ context.Context, token string) (text string, last bool, err error) {
			for _, step := range []struct {
				line string
				code int
			}{{"MAIL FROM:<a@localhost>", 250}, {"RCPT TO:<b@localhost>", 250}, {"DATA", 354}, {token + "\r\n.", 250}} {
				if text, err = say(step.code, "%s", step.line); err != nil {
					return "", false, fmt.Errorf("%s: %w", step.line, err)
				}
			}
			_, text, _ = strings.Cut(text, " ") // behind the enhanced status code
			return text, false, nil
		},
	}, nil
}

// openMQTT speaks MQTT 3.1.1: it publishes messages of quality 1, each of which the
// broker acknowledges.
func openMQTT(ctx context.Context, address string) (*dialog, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	exchange := func(packet, want []byte) error {
		if _, err := nc.Write(packet); err != nil {
			return err
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(nc, got); err != nil {
			return err
		}
		if string(got) != string(want) {
			return fmt.Errorf("answer % x, want % x", got, want)
		}
		return nil
	}
	// CONNECT: protocol MQTT, level 4, a clean session, without a time limit, and a
	// client ID that the broker chooses. CONNACK: accepted.
	if err := exchange([]byte("\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"), []byte{0x20, 2, 0, 0}); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	var id byte
	return &dialog{close: nc.Close, ask: func(_ context.Context, token string) (string, bool, error) {
		id = id%100 + 1
		packet := append([]byte{0x32, byte(5 + len(token)), 0, 1, 't', 0, id}, token...)
		return "0 " + token, false, exchange(packet, []byte{0x40, 2, 0, id})
	}}, nil
}
