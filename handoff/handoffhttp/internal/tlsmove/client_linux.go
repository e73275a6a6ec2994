package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// counts are what clients have counted. A request that gets no response, or one whose
// status is not 200, has failed. None is sent again.
type counts struct {
	Requests, Failed, Wrong, Connections uint64
}

func (c *counts) add(o counts) {
	c.Requests += o.Requests
	c.Failed += o.Failed
	c.Wrong += o.Wrong
	c.Connections += o.Connections
}

// clients are processes with clients. Each ends when its standard input does, and writes
// its counts.
type clients struct {
	mu      sync.Mutex
	sum     counts
	errs    []error
	wg      sync.WaitGroup
	ending  atomic.Bool
	killed  atomic.Bool // what clients of this process count from now on is the driver's doing
	running []*exec.Cmd
	inputs  []io.Closer
}

// startClients starts n clients.
func startClients(addr string, n int) (*clients, error) {
	c := &clients{}
	for _, args := range [][]string{{addr, strconv.Itoa(n / 4), "13"}, {addr, strconv.Itoa(n / 4), "12"}} {
		if err := c.counting(self("client", args...)); err != nil {
			return nil, err
		}
	}
	if err := c.counting(child(exec.Command("python3", "-c", python, addr, strconv.Itoa(n/4)), "")); err != nil {
		return nil, err
	}
	for range n / 8 {
		c.wg.Go(func() { c.curl(addr) })
		if err := c.openssl(addr); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// stopTimeout bounds the time in which a client ends its last request.
const stopTimeout = time.Minute

// stop ends all clients and returns what they have counted. It kills those that do not end
// in time: an error says so.
func (c *clients) stop() (counts, error) {
	c.ending.Store(true)
	for _, in := range c.inputs {
		_ = in.Close() // a pipe
	}
	late := time.AfterFunc(stopTimeout, func() {
		c.done(counts{}, fmt.Errorf("clients have not ended their last requests within %v", stopTimeout))
		c.endProcesses()
	})
	c.wg.Wait()
	late.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sum, errors.Join(c.errs...)
}

// kill ends what stop has not.
func (c *clients) kill() {
	c.ending.Store(true)
	c.endProcesses()
	c.wg.Wait()
}

func (c *clients) endProcesses() {
	c.killed.Store(true)
	c.mu.Lock()
	running := c.running
	c.mu.Unlock()
	for _, cmd := range running {
		_ = cmd.Process.Kill() // it may have ended
	}
}

func (c *clients) done(n counts, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum.add(n)
	if err != nil {
		c.errs = append(c.errs, err)
	}
}

func (c *clients) start(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = append(c.running, cmd)
	return nil
}

// counting starts a process that writes its counts as JSON.
func (c *clients) counting(cmd *exec.Cmd) error {
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := c.start(cmd); err != nil {
		return err
	}
	c.inputs = append(c.inputs, in)
	c.wg.Go(func() { // ends with the process
		err := cmd.Wait()
		var n counts
		if err == nil {
			err = json.Unmarshal(out.Bytes(), &n)
		}
		c.done(n, err)
	})
	return nil
}

// openssl runs one connection of openssl s_client, to which this process writes requests.
func (c *clients) openssl(addr string) error {
	cmd := child(exec.Command("openssl", "s_client", "-quiet", "-connect", addr), "")
	cmd.Stderr = nil // it tells about the certificate
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.start(cmd); err != nil {
		return err
	}
	c.wg.Go(func() { // ends with stop
		n := counts{Connections: 1}
		r := bufio.NewReader(out)
		for i := 0; !c.ending.Load() && n.Failed == 0; i++ {
			before := n
			err := n.exchange(in, r, i)
			if c.killed.Load() {
				n = before // the driver has ended the client within the request
				break
			}
			if err != nil {
				fmt.Fprintf(os.Stderr, "openssl: request %d failed: %v\n", i, err)
			}
			pause(context.Background(), 5*time.Millisecond)
		}
		_ = cmd.Process.Kill() // it has no more to do
		_ = cmd.Wait()         // killed
		c.done(n, nil)
	})
	return nil
}

// exchange sends one request and receives its response. It returns why the request has
// failed.
func (n *counts) exchange(w io.Writer, r *bufio.Reader, i int) error {
	n.Requests++
	body := strings.Repeat(strconv.Itoa(i)+"\n", 1+rand.IntN(1+(i%50)*100))
	_, err := fmt.Fprintf(w, "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	var res *http.Response
	if err == nil {
		res, err = http.ReadResponse(r, nil)
	}
	var b []byte
	if err == nil {
		b, err = io.ReadAll(res.Body)
	}
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	switch {
	case err != nil:
		n.Failed++
	case string(b) != body || res.Close:
		n.Wrong++
	}
	return err
}

// goClients are clients of crypto/tls, one connection each, until standard input ends.
func goClients(args []string) {
	number, _ := strconv.Atoi(args[1]) // this program's own
	cfg := &tls.Config{InsecureSkipVerify: true}
	if args[2] == "12" {
		cfg.MaxVersion = tls.VersionTLS12
	}
	var ending atomic.Bool
	var sum counts
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range number {
		wg.Go(func() {
			n := counts{Connections: 1}
			tc, err := tls.Dial("tcp", args[0], cfg)
			if err != nil {
				n.Failed++
				fmt.Fprintln(os.Stderr, "Go: no connection:", err)
			} else {
				defer tc.Close()
				r := bufio.NewReader(tc)
				for i := 0; !ending.Load() && n.Failed == 0; i++ {
					if err := n.exchange(tc, r, i); err != nil {
						fmt.Fprintf(os.Stderr, "Go, TLS 1.%s: request %d failed: %v\n", args[2][1:], i, err)
					}
					pause(context.Background(), time.Duration(rand.IntN(10))*time.Millisecond)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			sum.add(n)
		})
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the driver closes it
	ending.Store(true)
	wg.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(sum) // the driver misses it
}

// requestsOfCurl is how many requests a process of curl's sends on its one connection.
const requestsOfCurl = 300

// curl runs processes of curl, one after the other.
func (c *clients) curl(addr string) {
	var n counts
	const text = "curl's own body"
	for !c.ending.Load() && n.Failed == 0 {
		cmd := child(exec.Command("curl", "-sk", "--http1.1", "--data-binary", text, "-w", "\n%{http_code} %{num_connects}\n",
			fmt.Sprintf("https://%s/echo?[1-%d]", addr, requestsOfCurl)), "")
		var out bytes.Buffer
		cmd.Stdout = &out
		err := c.start(cmd)
		if err == nil {
			err = cmd.Wait()
		}
		if c.killed.Load() {
			break // within its requests, by the driver
		}
		lines := strings.Fields(strings.ReplaceAll(out.String(), text, "body"))
		n.Requests += requestsOfCurl
		answered := uint64(0)
		for ; len(lines) >= 3; lines = lines[3:] {
			connects, cerr := strconv.ParseUint(lines[2], 10, 64)
			err = errors.Join(err, cerr)
			n.Connections += min(connects, 1)
			switch {
			case lines[1] != "200":
			case lines[0] != "body" || answered > 0 && connects != 0: // it has come back for a request
				n.Wrong++
				answered++
			default:
				answered++
			}
		}
		n.Failed += requestsOfCurl - answered
		if err != nil && n.Failed == 0 {
			n.Failed++
		}
		if n.Failed > 0 {
			fmt.Fprintf(os.Stderr, "curl: %d of %d requests failed: %v\n", requestsOfCurl-answered, requestsOfCurl, err)
		}
	}
	c.done(n, nil)
}

// python has clients of http.client, one connection each.
const python = `
import http.client, json, random, ssl, sys, threading, time
addr, number = sys.argv[1], int(sys.argv[2])
context = ssl._create_unverified_context()
total = dict(Requests=0, Failed=0, Wrong=0, Connections=0)
lock, ending = threading.Lock(), threading.Event()
def client():
    n = dict(Requests=0, Failed=0, Wrong=0, Connections=1)
    c = http.client.HTTPSConnection(addr, context=context)
    c.connect()
    c.auto_open = 0
    while not ending.is_set() and not n["Failed"]:
        body = random.randbytes(random.randrange(1, 20000))
        n["Requests"] += 1
        try:
            c.request("POST", "/echo", body)
            r = c.getresponse()
            b = r.read()
            if r.status != 200: n["Failed"] += 1
            elif b != body or r.will_close: n["Wrong"] += 1
        except Exception as e:
            print("python: request failed:", e, file=sys.stderr)
            n["Failed"] += 1
        time.sleep(random.random() / 100)
    c.close()
    with lock:
        for k in total: total[k] += n[k]
threads = [threading.Thread(target=client) for _ in range(number)]
for t in threads: t.start()
sys.stdin.read()
ending.set()
for t in threads: t.join()
print(json.dumps(total))
`
