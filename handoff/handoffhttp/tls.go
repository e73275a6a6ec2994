package handoffhttp

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
)

// ServeTLS is [Server.Serve] for TLS, as [http.Server.ServeTLS] is for Serve:
// certFile and keyFile may be empty if srv's TLSConfig has a certificate.
// Session tickets stay valid across an upgrade (see [ShareTickets]), unless TLSConfig
// disables tickets, or has a key or callbacks for them, or [Config.OwnTickets] is set.
// ServeTLS clones srv's TLSConfig. With an Upgrader, call it before
// [handoff.Upgrader.Ready].
func (s *Server) ServeTLS(ln net.Listener, certFile, keyFile string) error {
	l, secure, err := s.listenTLS(ln, certFile, keyFile)
	if err != nil {
		return err
	}
	return s.serve(l, secure)
}

// listenTLS does what http.Server.ServeTLS does before it serves.
func (s *Server) listenTLS(ln net.Listener, certFile, keyFile string) (l *listener, secure net.Listener, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tlsBase == nil {
		if s.tlsBase = s.srv.TLSConfig; s.tlsBase == nil {
			s.tlsBase = &tls.Config{}
		}
	}
	cfg := s.tlsBase.Clone()
	cfg.NextProtos = s.nextProtos(cfg.NextProtos)
	if certFile != "" || keyFile != "" || len(cfg.Certificates) == 0 && cfg.GetCertificate == nil && cfg.GetConfigForClient == nil {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("handoffhttp: certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	//lint:ignore SA1019 a program that sets the field has chosen its own key
	own := cfg.SessionTicketsDisabled || cfg.SessionTicketKey != [32]byte{} || cfg.WrapSession != nil || cfg.UnwrapSession != nil
	if !own && !s.cfg.ownTickets && s.whole != nil {
		if err := ShareTickets(s.whole, ticketsPrefix+ln.Addr().Network()+" "+ln.Addr().String(), cfg); err != nil {
			return nil, nil, err
		}
	}
	s.srv.TLSConfig = cfg // net/http looks for "h2" there
	s.tlsConfigs = append(s.tlsConfigs, cfg)
	l = s.wrapLocked(ln, true, s.movesTLS(cfg))
	if l.tls != nil && l.name != "" {
		return l, &shakingListener{l}, nil
	}
	return l, tls.NewListener(l, cfg), nil
}

// nextProtos is what adjustNextProtos of net/http makes of protos. It may name
// "h2" where GODEBUG=http2server=0 holds, until hookHTTP2.
func (s *Server) nextProtos(protos []string) []string {
	var on http.Protocols
	if p := s.srv.Protocols; p != nil {
		on = *p
	} else {
		on.SetHTTP1(true)
		on.SetHTTP2(s.srv.TLSNextProto == nil || s.srv.TLSNextProto["h2"] != nil)
	}
	protos = slices.DeleteFunc(slices.Clone(protos), func(p string) bool {
		return p == "h2" && !on.HTTP2() || p == "http/1.1" && !on.HTTP1()
	})
	if on.HTTP2() && !slices.Contains(protos, "h2") {
		protos = append(protos, "h2")
	}
	if on.HTTP1() && !slices.Contains(protos, "http/1.1") {
		protos = append(protos, "http/1.1")
	}
	return protos
}
