package tlspeers_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// An openssl is a process of openssl s_client.
type openssl struct {
	t        *testing.T
	in       io.WriteCloser
	out, err *bufio.Reader
}

// dialOpenSSL connects with openssl.
func dialOpenSSL(t *testing.T, s *server, args ...string) *openssl {
	t.Helper()
	path := program(t, "openssl")
	// -brief keeps what it tells about the session out of its standard output.
	cmd := exec.CommandContext(t.Context(), path, append([]string{"s_client", "-brief", "-connect", s.addr}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }) // a read tells
	t.Cleanup(func() {
		_ = in.Close()         // a pipe
		_ = cmd.Process.Kill() // it may have ended
		_, _ = io.ReadAll(out) // Wait closes it
		_ = cmd.Wait()         // killed
		limit.Stop()
	})
	return &openssl{t, in, bufio.NewReader(out), bufio.NewReader(errs)}
}

func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no client: %v", err)
	}
	return path
}

// ask sends a line and wants it back.
func (o *openssl) ask(line string) {
	o.t.Helper()
	if _, err := io.WriteString(o.in, line+"\n"); err != nil {
		o.t.Fatal(err)
	}
	if got, err := o.out.ReadString('\n'); err != nil || got != line+"\n" {
		o.t.Fatalf("the answer to %.40q is %.40q, %v", line, got, err)
	}
}

// updateKeys sends KeyUpdate: with K it asks the server to update its own key, with k not.
func (o *openssl) updateKeys(command string) {
	o.t.Helper()
	if _, err := io.WriteString(o.in, command+"\n"); err != nil {
		o.t.Fatal(err)
	}
	for {
		switch line, err := o.err.ReadString('\n'); {
		case err != nil:
			o.t.Fatalf("openssl does not update its keys: %v", err)
		case strings.Contains(line, "KEYUPDATE"):
			return
		}
	}
}

// TestOpenSSL moves connections of openssl, with each cipher suite.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	for suite, id := range map[string]uint16{
		"TLS_AES_128_GCM_SHA256":        tls.TLS_AES_128_GCM_SHA256,
		"TLS_AES_256_GCM_SHA384":        tls.TLS_AES_256_GCM_SHA384,
		"TLS_CHACHA20_POLY1305_SHA256":  tls.TLS_CHACHA20_POLY1305_SHA256,
		"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			args := []string{"-tls1_3", "-ciphersuites", suite}
			if strings.HasPrefix(suite, "ECDHE") {
				args = []string{"-tls1_2", "-cipher", suite}
			}
			o := dialOpenSSL(t, s, args...)
			for i := range 4 {
				o.ask(fmt.Sprint("line ", i))
				o.ask(strings.Repeat("long", 4000))
			}
			s.want(t, 7, "")
			if got := s.state.CipherSuite; got != id {
				t.Errorf("the suite is %s", tls.CipherSuiteName(got))
			}
		})
	}
	t.Run("fragments", func(t *testing.T) {
		t.Parallel()
		s := start(t)
		o := dialOpenSSL(t, s, "-max_send_frag", "512")
		for range 4 {
			o.ask(strings.Repeat("long", 4000))
		}
		s.want(t, 3, "")
	})
	t.Run("padding", func(t *testing.T) {
		t.Parallel()
		s := start(t)
		o := dialOpenSSL(t, s, "-tls1_3", "-record_padding", "512")
		for i := range 3 {
			o.ask(fmt.Sprint("line ", i))
		}
		s.want(t, 0, "padded")
	})
	for _, command := range []string{"K", "k"} {
		t.Run("KeyUpdate "+command, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			o := dialOpenSSL(t, s, "-tls1_3")
			o.ask(hold + " until the update")
			o.updateKeys(command)
			for i := range 3 {
				o.ask(fmt.Sprint("line ", i))
			}
			s.want(t, 0, "updated its keys")
		})
		t.Run("KeyUpdate after a move "+command, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			o := dialOpenSSL(t, s, "-tls1_3")
			o.ask("it moves")
			o.ask("it has moved")
			for i := range 4 {
				o.updateKeys(command)
				o.ask(fmt.Sprint("line ", i))
			}
			s.want(t, 5, "")
		})
	}
}

// TestGo moves connections of crypto/tls, with suites that a client without instructions
// for AES prefers.
func TestGo(t *testing.T) {
	t.Parallel()
	s := start(t)
	c, err := tls.Dial("tcp", s.addr, &tls.Config{
		InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // the exchange returns the error
	r := bufio.NewReader(c)
	for i := range 5 {
		line := fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", i*20000))
		if _, err := io.WriteString(c, line); err != nil {
			t.Fatal(err)
		}
		if got, err := r.ReadString('\n'); err != nil || got != line {
			t.Fatalf("line %d: %.20q, %v", i, got, err)
		}
	}
	s.want(t, 4, "")
}

// python is a client that has its records in its own hands.
const python = `
import socket, ssl, sys, threading
host, port, version, way = sys.argv[1:]
context = ssl._create_unverified_context()
if version == "1.2": context.maximum_version = ssl.TLSVersion.TLSv1_2
sock = socket.create_connection((host, int(port)), 60)
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(arrived, leaving)

def more():
    b = sock.recv(65536)
    if not b: sys.exit("the connection has ended")
    arrived.write(b)

while True:
    try:
        tls.do_handshake()
        break
    except ssl.SSLWantReadError:
        sock.sendall(leaving.read())
        more()
sock.sendall(leaving.read())

def sealed(line):
    tls.write(line)
    return leaving.read()

def pieces(b):
    for i in range(len(b)): sock.sendall(b[i:i+1])

answers = b""
def want(line):
    global answers
    while b"\n" not in answers:
        try: answers += tls.read(65536)
        except ssl.SSLWantReadError: more()
    got, _, answers = answers.partition(b"\n")
    if got + b"\n" != line: sys.exit("%r, want %r" % (got, line))

lines = [b"line %d\n" % i for i in range(400)]
if way == "pieces": # each record byte by byte
    for line in lines[:20]:
        pieces(sealed(line))
        want(line)
elif way == "coalesced": # three records and one to four bytes of the next one's header
    for i in range(0, 80, 4):
        for cut in 1, 2, 3, 4:
            last = sealed(lines[i]) + sealed(lines[i+1]) + sealed(lines[i+2])
            record = sealed(lines[i+3])
            sock.sendall(last + record[:cut])
            for line in lines[i:i+3]: want(line)
            sock.sendall(record[cut:])
            want(lines[i+3])
elif way == "pipeline": # no request waits for an answer
    all = b"".join(sealed(line) for line in lines)
    def send():
        for i in range(0, len(all), 100): sock.sendall(all[i:i+100])
    sender = threading.Thread(target=send)
    sender.start()
    for line in lines: want(line)
    sender.join()
`

// TestPython moves connections of Python's, whose records come in pieces, several at once
// with a part of a header, and without waiting for answers.
func TestPython(t *testing.T) {
	t.Parallel()
	path := program(t, "python3")
	for _, version := range []string{"1.2", "1.3"} {
		for way, moves := range map[string]int{"pieces": 19, "coalesced": 60, "pipeline": 2} {
			t.Run(version+" "+way, func(t *testing.T) {
				t.Parallel()
				s := start(t)
				host, port, err := net.SplitHostPort(s.addr)
				if err != nil {
					t.Fatal(err)
				}
				cmd := exec.CommandContext(t.Context(), path, "-c", python, host, port, version, way)
				cmd.Stderr = os.Stderr
				if out, err := cmd.Output(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				s.want(t, moves, "")
			})
		}
	}
}
