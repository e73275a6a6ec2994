package grpcecho

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The methods, of which messages are [wrapperspb.StringValue].
const (
	Unary  = "/Echo/Unary"
	Stream = "/Echo/Stream"
)

// Register has s answer each string by answer.
func Register(s *grpc.Server, answer func(string) string) { s.RegisterService(desc(), echo(answer)) }

// StreamDesc describes Stream to a client.
func StreamDesc() *grpc.StreamDesc { return &desc().Streams[0] }

type echo func(string) string

func (e echo) reply(in *wrapperspb.StringValue) *wrapperspb.StringValue {
	return wrapperspb.String(e(in.Value))
}

func desc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "Echo",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Unary",
			Handler: func(srv any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := new(wrapperspb.StringValue)
				if err := dec(in); err != nil {
					return nil, err
				}
				return srv.(echo).reply(in), nil
			},
		}},
		Streams: []grpc.StreamDesc{{
			StreamName: "Stream", ClientStreams: true, ServerStreams: true,
			Handler: func(srv any, st grpc.ServerStream) error {
				for {
					in := new(wrapperspb.StringValue)
					if err := st.RecvMsg(in); err == io.EOF {
						return nil
					} else if err != nil {
						return err
					}
					if err := st.SendMsg(srv.(echo).reply(in)); err != nil {
						return err
					}
				}
			},
		}},
	}
}
