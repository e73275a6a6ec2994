package main

import (
	"bytes"
	"errors"
	"os"
	"syscall"
)

// rackApp is the Ruby servers' program.
const rackApp = `body = ["hello\n"]
run lambda { |env| env["rack.input"]&.read; [200, {"content-type"=>"text/plain", "content-length"=>"6", "version"=>"%d"}, body] }
`

// appPeers are the application servers of Ruby and Python.
func appPeers() []*peer {
	all := []*peer{{
		name: "unicorn", what: "Unicorn, new binary", how: "USR2, QUIT", program: "unicorn", version: []string{"unicorn", "--version"},
		mainStays: true,
		write: func(n *nest, version uint32) error {
			if err := n.put("unicorn.rb", `worker_processes 2
listen "%[2]s"
pid "%[1]s/pid"
working_directory "%[1]s"
preload_app true
timeout 30
stderr_path "%[1]s/stderr"
`, n.inside(""), n.Addr); err != nil {
				return err
			}
			return n.put("config.ru", rackApp, version)
		},
		start: func(n *nest) error {
			if err := n.run("unicorn", "-D", "-E", "none", "-c", n.inside("unicorn.rb"), n.inside("config.ru")); err != nil {
				return err
			}
			return n.mainFrom("pid")
		},
		// The procedure of its document SIGNALS.
		upgrade: func(n *nest) error { return n.newMaster("pid", 2) },
	}}
	for _, c := range []struct {
		name, what, how string
		sig             syscall.Signal
		more            string
	}{
		// A phased restart needs workers that load the program themselves.
		{"puma-phased", "Puma, phased restart", "USR1", syscall.SIGUSR1, "preload_app! false"},
		{"puma-hot", "Puma, hot restart", "USR2", syscall.SIGUSR2, ""},
	} {
		all = append(all, &peer{
			name: c.name, what: c.what, how: c.how, program: "puma", version: []string{"puma", "--version"},
			mainStays: true,
			write: func(n *nest, version uint32) error {
				if err := n.put("puma.rb", `workers 2
threads 5, 5
bind "tcp://%[2]s"
pidfile "%[1]s/pid"
directory "%[1]s"
environment "none"
rackup "%[1]s/config.ru"
%[3]s
`, n.inside(""), n.Addr, c.more); err != nil {
					return err
				}
				return n.put("config.ru", rackApp, version)
			},
			start:   func(n *nest) error { return n.serve("puma", "-C", n.inside("puma.rb")) },
			upgrade: func(n *nest) error { return n.signal(n.main, c.sig) },
		})
	}
	for _, c := range []struct {
		name, what, how, more string
		upgrade               func(n *nest) error
	}{
		{"uwsgi-hup", "uWSGI, graceful reload", "HUP", "", func(n *nest) error { return n.signal(n.main, syscall.SIGHUP) }},
		{"uwsgi-chain", "uWSGI, chain reload", "master FIFO", "lazy-apps = true", (*nest).chainReload},
	} {
		all = append(all, &peer{
			name: c.name, what: c.what, how: c.how, program: "uwsgi-core", version: []string{"uwsgi-core", "--version"},
			mainStays: true,
			write: func(n *nest, version uint32) error {
				if err := n.put("app.py", `BODY = [b"hello\n"]
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "6"), ("Version", "%d"), ("Connection", "close")]
def application(env, start_response):
    env["wsgi.input"].read(int(env.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", HEADERS)
    return BODY
`, version); err != nil {
					return err
				}
				return n.put("uwsgi.ini", `[uwsgi]
strict = true
master = true
processes = 2
plugins = python3
http-socket = %[2]s
wsgi-file = %[1]s/app.py
master-fifo = %[1]s/fifo
need-app = true
die-on-term = true
disable-logging = true
%[3]s
`, n.inside(""), n.Addr, c.more)
			},
			start:   func(n *nest) error { return n.serve("uwsgi-core", "--ini", n.inside("uwsgi.ini")) },
			upgrade: c.upgrade,
		})
	}
	return all
}

// chainReload has uWSGI reload one worker after the other, and returns when it
// says that it has: until then it takes no other.
func (n *nest) chainReload() error {
	over := func() int {
		b, err := os.ReadFile(n.outside("log"))
		if err != nil {
			return 0
		}
		return bytes.Count(b, []byte("chain reloading complete"))
	}
	before := over()
	if err := os.WriteFile(n.outside("fifo"), []byte("c"), 0o600); err != nil {
		return err
	}
	return n.await(leaveTimeout, func() error {
		if over() == before {
			return errors.New("the chain is not over")
		}
		return nil
	})
}
