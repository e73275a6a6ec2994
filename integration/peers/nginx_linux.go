package main

import (
	"fmt"
	"os"
	"syscall"
)

// nginx(8): HUP reads the configuration anew and replaces the workers; USR2 starts
// the program anew beside the old one, which QUIT ends ("Upgrading Executable on
// the Fly").
func nginxPeers() []*peer {
	var all []*peer
	add := func(name, what, how, listen, more string, upgrade func(*nest) error) {
		all = append(all, &peer{
			name: name, what: what, how: how, program: "nginx", version: []string{"nginx", "-v"},
			mainStays: true,
			write: func(n *nest, version uint32) error {
				return n.put("nginx.conf", `worker_processes auto;
user root;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log notice;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	keepalive_requests 1000000;
	%[4]s
	server {
		listen %[2]s%[3]s;
		location / { add_header Version %[5]d; return 200 "hello\n"; }
	}
}
`, n.inside(""), n.Addr, listen, more, version)
			},
			start: func(n *nest) error {
				if err := n.run("nginx", "-c", n.inside("nginx.conf"), "-p", n.inside(""), "-e", n.inside("error.log")); err != nil {
					return err
				}
				return n.mainFrom("nginx.pid")
			},
			upgrade: upgrade,
		})
	}
	const minTimeout = "keepalive_min_timeout 3s;"
	add("nginx-usr2", "nginx, new binary", "USR2, QUIT", "", "", nginxUSR2)
	add("nginx-usr2-reuseport", "nginx, reuseport, new binary", "USR2, QUIT", " reuseport", "", nginxUSR2)
	add("nginx-hup", "nginx, reload", "HUP", "", "", nginxHUP)
	add("nginx-hup-reuseport", "nginx, reuseport, reload", "HUP", " reuseport", "", nginxHUP)
	add("nginx-usr2-min-timeout", "nginx, keepalive_min_timeout, new binary", "USR2, QUIT", "", minTimeout, nginxUSR2)
	add("nginx-hup-min-timeout", "nginx, keepalive_min_timeout, reload", "HUP", "", minTimeout, nginxHUP)
	return all
}

// mainFrom takes the main process from a file that it writes.
func (n *nest) mainFrom(file string) error {
	return n.await(startTimeout, func() (err error) {
		n.main, err = n.pidFile(file)
		return err
	})
}

func nginxHUP(n *nest) error { return n.signal(n.main, syscall.SIGHUP) }

// nginxUSR2 waits with the QUIT until the new master has workers.
func nginxUSR2(n *nest) error { return n.newMaster("nginx.pid", 1) }

// newMaster has the main process start its program anew (USR2), and ends it (QUIT)
// once the new one, which the file names by then, has workers.
func (n *nest) newMaster(file string, workers int) error {
	old := n.main
	if err := n.signal(old, syscall.SIGUSR2); err != nil {
		return err
	}
	err := n.await(startTimeout, func() error {
		if _, err := os.Stat(n.outside(file + ".oldbin")); err != nil {
			return err
		}
		pid, err := n.pidFile(file)
		if err != nil {
			return err
		}
		if pid == old || len(descendants(pid)) < workers {
			return fmt.Errorf("process %d has no successor with workers", old)
		}
		n.main = pid
		return nil
	})
	if err != nil {
		return err
	}
	return n.signal(old, syscall.SIGQUIT)
}
