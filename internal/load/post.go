package load

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"time"
)

// poster is a connection on which a client of kind Post sends its requests. It
// stands on net/http's messages, not on its Transport: a Transport may send a
// request again, uncounted.
type poster struct {
	c       net.Conn
	r       *bufio.Reader
	version string // that answered last
	last    bool   // the service has said so
}

func (p *poster) close() {
	if p != nil {
		_ = p.c.Close()
	}
}

// post sends a request over p, or a new connection if p is nil. It returns the
// connection for the next one, or nil.
func (e *exchange) post(p *poster) (*poster, error) {
	if p == nil {
		c, err := net.DialTimeout(e.target.Network, e.target.Address, e.Timeout)
		if err != nil {
			return nil, err
		}
		p = &poster{c: c, r: bufio.NewReader(c)}
	}
	err := e.askPost(p)
	if err != nil || p.last {
		p.close()
		return nil, err
	}
	return p, nil
}

func (e *exchange) askPost(p *poster) error {
	e.step, e.local = "request", p.c.LocalAddr().String()
	if err := p.c.SetDeadline(time.Now().Add(e.Timeout)); err != nil {
		return err
	}
	token := e.token()
	req, err := http.NewRequest(http.MethodPost, "http://"+e.target.Address+"/", strings.NewReader(token))
	if err != nil {
		return err
	}
	if err := req.Write(p.c); err != nil {
		return err
	}
	e.step = "read response"
	resp, err := http.ReadResponse(p.r, req)
	if err != nil {
		return err
	}
	if err := e.response(resp, token); err != nil {
		return err
	}
	p.last = resp.Close
	if p.version != "" && p.version != e.version {
		e.moved()
	}
	p.version = e.version
	return nil
}
