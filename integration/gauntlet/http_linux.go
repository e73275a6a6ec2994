package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/websocket"
)

// request is an HTTP/1 request.
type request struct {
	method     string
	tls, short bool
	big        bool // the answer is long, and read slowly
	slow       bool // it is sent bit by bit
}

// http sends a request on the open connection, or a new one.
func (w *worker) http(r request) error {
	return w.request(func(token string) (uint32, error) {
		if w.nc == nil {
			if err := w.dialHTTP(r.tls); err != nil {
				return 0, err
			}
		}
		if err := w.nc.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
			return 0, err
		}
		if err := w.send(r, token); err != nil {
			return 0, err
		}
		return w.receive(r, token)
	})
}

func (w *worker) dialHTTP(secure bool) error {
	if err := w.dial("tcp"); err != nil || !secure {
		return err
	}
	tc := tls.Client(w.nc, &tls.Config{InsecureSkipVerify: true, ServerName: "gauntlet"})
	w.nc, w.in = tc, bufio.NewReader(tc)
	return tc.Handshake()
}

// send writes a request; a slow one bit by bit.
func (w *worker) send(r request, token string) error {
	var b bytes.Buffer
	path, body := "/", token
	switch {
	case r.big:
		path = "/big?" + token
	case r.method == "GET":
		path = "/?" + token
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: gauntlet\r\n", r.method, path)
	if r.short {
		b.WriteString("Connection: close\r\n")
	}
	if r.method == "POST" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	if r.method == "POST" {
		b.WriteString(body)
	}
	if !r.slow {
		_, err := w.nc.Write(b.Bytes())
		return err
	}
	for b.Len() > 0 {
		if _, err := w.nc.Write(b.Next(1 + w.rng.IntN(12))); err != nil {
			return err
		}
		sleep(context.Background(), time.Duration(w.rng.Int64N(int64(20*time.Millisecond))))
	}
	return nil
}

// receive reads a response; a big one slowly.
func (w *worker) receive(r request, token string) (uint32, error) {
	resp, err := http.ReadResponse(w.in, &http.Request{Method: r.method})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%w: %s", errWrong, resp.Status)
	}
	var pid uint32
	if r.big {
		pid, err = w.readSlowly(resp.Body, token)
	} else {
		var text []byte
		if text, err = io.ReadAll(io.LimitReader(resp.Body, 512)); err == nil {
			pid, err = answered(string(text), token)
		}
	}
	if resp.Close || r.short {
		w.hangUp()
	}
	return pid, err
}

func (w *worker) readSlowly(body io.Reader, token string) (uint32, error) {
	br := bufio.NewReader(body)
	line, err := br.ReadString('\n')
	if err != nil {
		return 0, err
	}
	pid, err := answered(line, token)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, bigAnswer/16)
	for at := 0; at < bigAnswer; at += len(buf) {
		if _, err := io.ReadFull(br, buf); err != nil {
			return pid, err
		}
		if i := bytes.IndexFunc(buf, func(r rune) bool { return r != 'x' }); i >= 0 {
			return pid, fmt.Errorf("%w: byte %d is %q", errWrong, at+i, buf[i])
		}
		sleep(context.Background(), time.Duration(w.rng.Int64N(int64(20*time.Millisecond))))
	}
	n, err := io.Copy(io.Discard, br)
	if n != 0 {
		return pid, fmt.Errorf("%w: %d bytes more", errWrong, n)
	}
	return pid, err
}

// websocket sends messages on a connection until the service says that the last
// one has come, or for 50 of them.
func (w *worker) websocket(ctx context.Context) error {
	defer w.hangUp()
	var ws *websocket.Conn
	for i := 0; ; i++ {
		last := false
		err := w.request(func(token string) (pid uint32, err error) {
			if ws == nil {
				if err := w.dial("tcp"); err != nil {
					return 0, err
				}
				cfg, err := websocket.NewConfig("ws://gauntlet/ws", "http://gauntlet/")
				if err != nil {
					return 0, err
				}
				if ws, err = websocket.NewClient(cfg, w.nc); err != nil {
					return 0, err
				}
			}
			if err := w.nc.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
				return 0, err
			}
			if err := websocket.Message.Send(ws, token); err != nil {
				return 0, err
			}
			var text string
			if err := websocket.Message.Receive(ws, &text); err != nil {
				return 0, err
			}
			text, last = strings.CutSuffix(text, " last")
			return answered(text, token)
		})
		if err != nil || last || i >= 50 || ctx.Err() != nil {
			return err
		}
		sleep(ctx, time.Duration(w.rng.Int64N(int64(10*time.Millisecond))))
	}
}
