package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/seed-11c92bf9/baton/integration/internal/grpcecho"
	"github.com/seed-11c92bf9/baton/internal/load"
)

// giveUp has a library begin with no connection.
func (w *worker) giveUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.library, w.dialled, w.opened = true, 0, now()
}

// dialer is dial for a library that has connections of its own.
func (w *worker) dialer(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := (&net.Dialer{Timeout: clientTimeout}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialled = connOf(nc.LocalAddr(), nc.RemoteAddr())
	return nc, nil
}

// current is what dialer has connected last.
func (w *worker) current() connID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dialled
}

// h2 posts on an HTTP/2 connection until ctx ends. net/http can't repeat a request of
// which it has sent a part: there is no GetBody. A request of which it has sent
// nothing, because GOAWAY arrived after it had chosen the connection, fails as well,
// since net/http has closed the body by then. No server has seen such a request, so h2
// sends it again.
func (w *worker) h2(ctx context.Context) error {
	w.giveUp()
	tr := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DialContext: w.dialer}
	tr.Protocols.SetHTTP2(true)
	defer tr.CloseIdleConnections()
	for ctx.Err() == nil {
		err := w.request(func(token string) (pid uint32, err error) {
			for {
				body := load.NewBody([]byte(token))
				pid, err := w.post2(tr, body, token)
				if err == nil || body.Sent() || !strings.Contains(err.Error(), "cannot rewind body") {
					return pid, err
				}
			}
		})
		if err != nil {
			return err
		}
		sleep(ctx, time.Duration(w.rng.Int64N(int64(5*time.Millisecond))))
	}
	return nil
}

func (w *worker) post2(tr *http.Transport, body *load.Body, token string) (uint32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+w.addr+"/", body)
	if err != nil {
		return 0, err
	}
	req.ContentLength = int64(len(token))
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 512))
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		return 0, fmt.Errorf("%w: %s %s", errWrong, resp.Proto, resp.Status)
	}
	return answered(string(text), token)
}

// dialGRPC returns a client that retries nothing but what a server has said not
// to have seen, which is no retry.
func (w *worker) dialGRPC() (*grpc.ClientConn, error) {
	w.giveUp()
	return grpc.NewClient("passthrough:///"+w.addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return w.dialer(ctx, "tcp", addr) }),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond},
			MinConnectTimeout: clientTimeout,
		}))
}

func (w *worker) grpcUnary(ctx context.Context) error {
	cc, err := w.dialGRPC()
	if err != nil {
		return err
	}
	defer cc.Close()
	for ctx.Err() == nil {
		err := w.request(func(token string) (uint32, error) {
			bound, cancel := context.WithTimeout(context.Background(), clientTimeout)
			defer cancel()
			out := new(wrapperspb.StringValue)
			if err := cc.Invoke(bound, grpcecho.Unary, wrapperspb.String(token), out); err != nil {
				return 0, err
			}
			return answered(out.Value, token)
		})
		if err != nil {
			return err
		}
		sleep(ctx, time.Duration(w.rng.Int64N(int64(5*time.Millisecond))))
	}
	return nil
}

func (w *worker) grpcStream(ctx context.Context) error {
	cc, err := w.dialGRPC()
	if err != nil {
		return err
	}
	defer cc.Close()
	for ctx.Err() == nil {
		if err := w.stream(ctx, cc); err != nil {
			return err
		}
		sleep(ctx, time.Duration(w.rng.Int64N(int64(5*time.Millisecond))))
	}
	return nil
}

// stream sends 20 messages on a stream.
func (w *worker) stream(ctx context.Context, cc *grpc.ClientConn) error {
	bound, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	var st grpc.ClientStream
	const messages = 20
	for i := range messages {
		last := i == messages-1 || ctx.Err() != nil
		err := w.request(func(token string) (pid uint32, err error) {
			if st == nil {
				if st, err = cc.NewStream(bound, grpcecho.StreamDesc(), grpcecho.Stream); err != nil {
					return 0, err
				}
			}
			if err := st.SendMsg(wrapperspb.String(token)); err != nil {
				if err == io.EOF { // its status has the reason
					err = st.RecvMsg(new(wrapperspb.StringValue))
				}
				return 0, err
			}
			out := new(wrapperspb.StringValue)
			if err := st.RecvMsg(out); err != nil {
				return 0, err
			}
			if pid, err = answered(out.Value, token); err != nil || !last {
				return pid, err
			}
			if err := st.CloseSend(); err != nil {
				return pid, err
			}
			switch err := st.RecvMsg(out); err {
			case nil:
				return pid, fmt.Errorf("%w: %q after the last answer", errWrong, out.Value)
			case io.EOF:
				return pid, nil
			default:
				return pid, err
			}
		})
		if err != nil || last {
			return err
		}
		sleep(ctx, 5*time.Millisecond)
	}
	return nil
}
