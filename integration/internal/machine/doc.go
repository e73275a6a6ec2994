// Package machine boots a real systemd: as PID 1 of PID, mount, network, UTS, IPC
// and cgroup namespaces of its own, on this system's files or on those of a
// folder ([NewerRoot]), in a fraction of a second.
//
// What runs in it can't harm the machine around it: all files are read-only but
// for /etc, /run, /tmp, /var/log, /var/lib/systemd and /usr/local/bin, which are
// its own and empty, or a copy (/etc); sysctls can't be set; there is no network
// but its own loopback interface; the capabilities that reach beyond namespaces
// are dropped. None of the distribution's units run but journald and targets.
//
// It needs root, Linux 5.12, a cgroup2 hierarchy, nsenter and setpriv (util-linux). All
// of it ends with [Machine.Close], or with the process that has booted it.
package machine
