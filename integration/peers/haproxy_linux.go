package main

import "syscall"

// HAProxy's management guide: in master-worker mode USR2 to the master starts a
// new worker, which gets the listeners of the old one over the stats socket
// (expose-fd listeners); -x /dev/null turns that off.
func haproxyPeers() []*peer {
	var all []*peer
	add := func(name, what, expose, defaults string, args ...string) {
		all = append(all, &peer{
			name: name, what: what, how: "USR2", program: "haproxy", version: []string{"haproxy", "-v"},
			mainStays: true,
			write: func(n *nest, version uint32) error {
				return n.put("haproxy.cfg", `global
	stats socket %[1]s/stats mode 600 level admin%[3]s
	maxconn 4096
	hard-stop-after 10s
defaults
	mode http
	timeout client 30s
	timeout connect 5s
	timeout server 30s
	%[4]s
frontend f
	bind %[2]s
	http-request return status 200 content-type text/plain hdr Version %[5]d string "hello\n"
`, n.inside(""), n.Addr, expose, defaults, version)
			},
			start: func(n *nest) error {
				return n.serve(append([]string{"haproxy", "-W", "-f", n.inside("haproxy.cfg"), "-p", n.inside("pid")}, args...)...)
			},
			upgrade: func(n *nest) error { return n.signal(n.main, syscall.SIGUSR2) },
		})
	}
	const expose = " expose-fd listeners"
	add("haproxy", "HAProxy, fd passing", expose, "")
	add("haproxy-no-fds", "HAProxy, no fd passing", "", "", "-x", "/dev/null")
	add("haproxy-idle-close", "HAProxy, idle-close-on-response", expose, "option idle-close-on-response")
	return all
}
