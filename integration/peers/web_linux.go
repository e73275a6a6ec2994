package main

import (
	"net"
	"syscall"
)

// webPeers are Caddy, whose configuration is replaced over its admin API, and
// Apache with its graceful restart.
func webPeers() []*peer {
	return []*peer{
		{
			name: "caddy", what: "Caddy, reload", how: "caddy reload", program: "caddy", version: []string{"caddy", "version"},
			mainStays: true, stays: true,
			write: func(n *nest, version uint32) error {
				host, port, err := net.SplitHostPort(n.Addr)
				if err != nil {
					return err
				}
				return n.put("Caddyfile", `{
	admin unix/%[1]s/admin
	auto_https off
	persist_config off
	storage file_system %[1]s/storage
}
http://:%[4]s {
	bind %[2]s
	header Version %[3]d
	respond "hello
"
}
`, n.inside(""), host, version, port)
			},
			start: func(n *nest) error {
				return n.serve("caddy", "run", "--config", n.inside("Caddyfile"), "--adapter", "caddyfile")
			},
			upgrade: func(n *nest) error {
				return n.run("caddy", "reload", "--config", n.inside("Caddyfile"), "--adapter", "caddyfile", "--address", "unix/"+n.inside("admin"))
			},
		},
		{
			name: "apache", what: "Apache, mpm_event, graceful", how: "USR1 (graceful)", program: "apache2", version: []string{"apache2", "-v"},
			mainStays: true,
			write: func(n *nest, version uint32) error {
				if err := n.put("www/index.html", "hello\n"); err != nil {
					return err
				}
				return n.put("apache.conf", `ServerRoot /usr/lib/apache2
PidFile %[1]s/pid
Listen %[2]s
ServerName peer
DefaultRuntimeDir %[1]s
Mutex file:%[1]s
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule dir_module modules/mod_dir.so
LoadModule headers_module modules/mod_headers.so
User www-data
Group www-data
DocumentRoot %[1]s/www
ErrorLog %[1]s/error.log
KeepAlive On
MaxKeepAliveRequests 0
DirectoryIndex index.html
Header always set Version %[3]d
<Directory %[1]s/www>
	Require all granted
</Directory>
`, n.inside(""), n.Addr, version)
			},
			start: func(n *nest) error {
				if err := n.run("apache2", "-f", n.inside("apache.conf"), "-k", "start"); err != nil {
					return err
				}
				return n.mainFrom("pid")
			},
			// What apachectl graceful sends.
			upgrade: func(n *nest) error { return n.signal(n.main, syscall.SIGUSR1) },
		},
	}
}
