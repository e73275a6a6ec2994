// Package grpcecho is a gRPC service that answers strings, one at a time or in a
// stream. It is written by hand, so that no generated code is needed.
package grpcecho
