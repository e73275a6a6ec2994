package main

import (
	"context"

	"github.com/miekg/dns"

	"github.com/seed-11c92bf9/baton/handoff"
)

// serveDNS answers questions over UDP. A server that has TCP as well runs both, with one
// Ready.
func serveDNS(ctx context.Context, up *handoff.Upgrader, address string) error {
	pc, err := up.ListenPacket(ctx, "udp", address)
	if err != nil {
		return err
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(resolve)}
	return stay(ctx, up, srv.ActivateAndServe, func() {})
}

// serveDNSOverTCP answers questions over TCP.
func serveDNSOverTCP(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	srv := &dns.Server{Listener: ln, Handler: dns.HandlerFunc(resolve)}
	return stay(ctx, up, srv.ActivateAndServe, func() {})
}

func resolve(w dns.ResponseWriter, question *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(question)
	name := question.Question[0].Name
	m.Answer = append(m.Answer, &dns.TXT{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET},
		Txt: []string{answer([]byte(name))},
	})
	_ = w.WriteMsg(m) // the client has gone, or not
}
