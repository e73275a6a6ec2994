package servers_test

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/integration/internal/grpcecho"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

func serveGRPC(ctx context.Context, _ settings, up *handoff.Upgrader, ln *handoff.Listener) error {
	gs := grpc.NewServer()
	gen := generation(up)
	grpcecho.Register(gs, func(in string) string { return gen + " " + in })
	served := make(chan error, 1)
	lis := ln
	go func() { served <- gs.Serve(lis) }()
	if err := up.Ready(); err != nil {
		return err
	}
	<-up.Done()
	stopped := make(chan struct{})
	go func() { // ends with the connections
		defer close(stopped)
		gs.GracefulStop()
	}()
	err := up.Shutdown(ctx) // waits for the connections, and cuts what is left at the limit
	<-stopped
	<-served
	return err
}

// TestGRPCLimit has a stream that doesn't end: it is cut at the linger limit,
// and the report says so.
func TestGRPCLimit(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		if mode != handoff.Takeover {
			testenv.Long(t, "TestGRPCLimit")
		}
		s := start(t, "grpc", settings{Mode: mode, Linger: 300 * time.Millisecond})
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cc, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		st, err := cc.NewStream(ctx, grpcecho.StreamDesc(), grpcecho.Stream)
		if err != nil {
			t.Fatal(err)
		}
		echo := func() error {
			if err := st.SendMsg(wrapperspb.String("b")); err != nil {
				return err
			}
			return st.RecvMsg(new(wrapperspb.StringValue))
		}
		if err := echo(); err != nil {
			t.Fatal(err)
		}
		if r := s.upgrade(); r.Cut != 1 || r.CutBy["tracked"] != 1 {
			t.Errorf("%d connections cut, %v, want the one with the stream", r.Cut, r.CutBy)
		}
		if err := echo(); err == nil {
			t.Error("the stream outlives the linger limit")
		}
	})
}

// TestGRPC has unary calls and streams under way while the server is replaced:
// none fails, none is sent again by the client (transparent retry aside, of what
// the server has told not to have seen).
func TestGRPC(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := start(t, "grpc", settings{Mode: mode})
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		stop := make(chan struct{})
		var wg sync.WaitGroup
		var calls, messages atomic.Int64
		for range 8 {
			cc, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			for range 4 {
				wg.Go(func() {
					for !closed(stop) {
						out := new(wrapperspb.StringValue)
						if err := cc.Invoke(ctx, grpcecho.Unary, wrapperspb.String("a"), out); err != nil {
							t.Errorf("call %d: %v", calls.Load(), err)
							return
						}
						calls.Add(1)
					}
				})
			}
			wg.Go(func() {
				for !closed(stop) {
					st, err := cc.NewStream(ctx, grpcecho.StreamDesc(), grpcecho.Stream)
					for i := 0; err == nil && i < 100; i++ {
						if err = st.SendMsg(wrapperspb.String("b")); err == nil {
							err = st.RecvMsg(new(wrapperspb.StringValue))
							messages.Add(1)
						}
					}
					if err == nil {
						if err = st.CloseSend(); err == nil {
							if err = st.RecvMsg(new(wrapperspb.StringValue)); err == io.EOF {
								err = nil
							}
						}
					}
					if err != nil {
						t.Errorf("stream, after %d messages of all: %v", messages.Load(), err)
						return
					}
				}
			})
		}
		for range upgrades() {
			if r := s.upgrade(); r.Cut != 0 {
				t.Errorf("%d connections cut: %v", r.Cut, r.CutBy)
			}
		}
		close(stop)
		wg.Wait()
		t.Logf("%d calls, %d messages of streams", calls.Load(), messages.Load())
	})
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
