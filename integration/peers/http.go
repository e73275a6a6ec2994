package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// request returns the bytes of a request.
func (k kind) request() []byte {
	switch k {
	case post:
		return append([]byte("POST / HTTP/1.1\r\nHost: peer\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n"), bytes.Repeat([]byte{'x'}, 64)...)
	case get:
		return []byte("GET / HTTP/1.1\r\nHost: peer\r\n\r\n")
	default:
		return []byte("GET / HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n\r\n")
	}
}

var errResponse = errors.New("not the answer")

// exchange sends a request and reads the response. It returns the version that
// answered, and whether the server closes the connection. A net/http client would use
// as much of the machine as the servers do.
func exchange(nc net.Conn, in *bufio.Reader, request []byte) (version uint32, closes bool, err error) {
	if _, err := nc.Write(request); err != nil {
		return 0, false, err
	}
	line, err := header(in)
	if err != nil {
		return 0, false, err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return 0, false, fmt.Errorf("%w: %q", errResponse, line)
	}
	size := -1
	for {
		if line, err = header(in); err != nil {
			return 0, false, err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			size, err = strconv.Atoi(string(value))
		case bytes.EqualFold(name, []byte("Version")):
			var n uint64
			n, err = strconv.ParseUint(string(value), 10, 32)
			version = uint32(n)
		case bytes.EqualFold(name, []byte("Connection")):
			closes = bytes.EqualFold(value, []byte("close"))
		}
		if err != nil {
			return 0, false, fmt.Errorf("%w: %w", errResponse, err)
		}
	}
	if size < 0 || version == 0 {
		return 0, false, fmt.Errorf("%w: no Content-Length or no Version", errResponse)
	}
	if _, err := in.Discard(size); err != nil {
		return 0, false, noEOF(err)
	}
	return version, closes, nil
}

// header returns a line of a response's head.
func header(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	return bytes.TrimRight(line, "\r\n"), noEOF(err)
}

// noEOF makes an end that comes too early one.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
