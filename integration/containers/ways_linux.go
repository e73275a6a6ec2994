package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// A way is one way to run and upgrade a service.
type way struct {
	name string
	run  func(s *stage) (seen string, err error)
}

func ways() []way {
	return []way{
		{"takeover", func(s *stage) (string, error) { return s.line("takeover") }},
		{"drain", func(s *stage) (string, error) { return s.line("drain") }},
		{"takeover, read-only root", func(s *stage) (string, error) { return s.line("takeover", "--read-only") }},
		{"takeover, user 1000", func(s *stage) (string, error) {
			if err := os.Chown(s.vol, 1000, 1000); err != nil {
				return "", err
			}
			return s.line("takeover", "--user", "1000:1000")
		}},
		{"takeover, user namespace", func(s *stage) (string, error) {
			const first, all = 200000, "0:200000:65536"
			if err := os.Chown(s.vol, first, first); err != nil {
				return "", err
			}
			return s.line("takeover", "--uidmap", all, "--gidmap", all)
		}},
		{"in place, below --init", func(s *stage) (string, error) { return s.refused("--init") }},
		{"in place, as PID 1", func(s *stage) (string, error) { return s.refused() }},
		{"baton run as PID 1", (*stage).supervised},
		{"takeover, networks of their own", func(s *stage) (string, error) { return s.elsewhere("takeover") }},
		{"drain, networks of their own", func(s *stage) (string, error) { return s.elsewhere("drain") }},
		{"pods of the documentation", (*stage).pods},
	}
}

// line replaces one container after the other by a new one with the same volume, in the
// network namespace of the machine.
func (s *stage) line(mode string, opts ...string) (string, error) {
	name := func(i int) string { return "api" + strconv.Itoa(i) }
	for i := range s.o.upgrades + 1 {
		if err := s.start(name(i), mode, opts...); err != nil {
			return "", err
		}
		if err := s.awaitOwner(name(i), i+1); err != nil {
			return "", err
		}
		if i == 0 {
			s.busy(s.all()...)
			continue
		}
		if err := s.ended(name(i - 1)); err != nil {
			return "", err
		}
		s.row.Upgrades++
	}
	return "each container took over from the one before, which ended with status 0", nil
}

// refused asks for an upgrade in a container that would end with the first process, and
// then replaces the container.
func (s *stage) refused(opts ...string) (string, error) {
	if err := s.start("api0", "takeover", opts...); err != nil {
		return "", err
	}
	if err := s.awaitOwner("api0", 1); err != nil {
		return "", err
	}
	s.busy(s.all()...)
	out, err := s.do(s.ctx, "exec", "api0", "/baton", "upgrade", "--socket", runtimeDir+"/api/control/sock")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(out, "baton run") {
		return "", fmt.Errorf("an upgrade in place is not refused with what to do: %w: %s", err, out)
	}
	if err := s.start("api1", "takeover", opts...); err != nil {
		return "", err
	}
	if err := errors.Join(s.awaitOwner("api1", 2), s.ended("api0")); err != nil {
		return "", err
	}
	s.row.Upgrades++
	return "refused: " + out, nil
}

// supervised has `baton run` as the first process of a container, and upgrades the
// service below it.
func (s *stage) supervised() (string, error) {
	const sock = runtimeDir + "/api/control/sock"
	_, err := s.do(s.ctx, "run", "--detach", "--network=host", "--name", "api", "--volume", s.vol+":"+runtimeDir+"/api",
		"--entrypoint", "/baton", "api", "run", "--listen", "http=tcp://"+s.http, "--socket", sock, "--",
		"/baton-demo", "serve", "-dir", runtimeDir+"/api", "-probation", "200ms", "-v", "-mode", "takeover", "-tcp", s.tcp, "-http", s.http)
	if err != nil {
		return "", err
	}
	if err := s.awaitOwner("api", 1); err != nil {
		return "", err
	}
	s.busy(s.all()...)
	for i := range s.o.upgrades {
		if _, err := s.do(s.ctx, "exec", "api", "/baton", "upgrade", "--socket", sock); err != nil {
			return "", err
		}
		if err := s.awaitOwner("api", i+2); err != nil {
			return "", err
		}
		s.row.Upgrades++
	}
	return "the container stays, the service below baton is replaced", nil
}

// elsewhere starts a successor in a network namespace of its own.
func (s *stage) elsewhere(mode string) (string, error) {
	if err := s.start("api0", mode); err != nil {
		return "", err
	}
	if err := s.awaitOwner("api0", 1); err != nil {
		return "", err
	}
	s.busy(s.all()...)
	if err := s.start("api1", mode, "--network=none"); err != nil {
		return "", err
	}
	if mode == "drain" {
		out, err := s.do(s.ctx, "wait", "api1")
		if err != nil || out == "0" {
			return "", fmt.Errorf("a successor that would not be in the group ended with status %s: %w", out, err)
		}
		log, err := s.do(s.ctx, "logs", "api1")
		if err != nil || !strings.Contains(log, "network namespace") {
			return "", fmt.Errorf("the successor does not name the reason: %w: %s", err, log)
		}
		return "refused: the first container serves on", nil
	}
	if err := errors.Join(s.awaitOwner("api1", 2), s.ended("api0")); err != nil {
		return "", err
	}
	s.row.Upgrades++
	log, err := s.do(s.ctx, "logs", "api1")
	if err != nil || !strings.Contains(log, "network namespace") {
		return "", fmt.Errorf("the log does not warn of the network namespace: %w: %s", err, log)
	}
	return "taken over, with a warning: the sockets stay in the namespace of the first", nil
}

// pods plays the pods that the documentation shows, one beside the other: the new pod
// of a node takes over from the old one.
func (s *stage) pods() (string, error) {
	text, err := os.ReadFile(s.o.docs)
	if err != nil {
		return "", err
	}
	pods := manifests(string(text))
	if len(pods) == 0 {
		return "", fmt.Errorf("%s shows no pod", s.o.docs)
	}
	s.http = "127.0.0.1:8080" // as in the pods
	generation := 0
	for _, pod := range pods {
		for i := range s.o.upgrades + 1 {
			name := fmt.Sprintf("node-%d", i)
			file := filepath.Join(s.dir, "pod.yaml")
			// podman 4.3 plays Deployments, and no DaemonSets, whose pods are the same.
			played := strings.NewReplacer("kind: DaemonSet", "kind: Deployment", "\n  name: api\n", "\n  name: "+name+"\n").Replace(pod)
			if err := os.WriteFile(file, []byte(played), 0o600); err != nil {
				return "", err
			}
			if _, err := s.do(s.ctx, "kube", "play", file); err != nil {
				return "", err
			}
			generation++
			if err := s.awaitOwner(name+"-pod-0-api", generation); err != nil {
				return "", err
			}
			if i == 0 {
				s.busy(s.web(), load.Target{Name: "post", Kind: load.Post, Network: "tcp", Address: s.http, Workers: 2})
				continue
			}
			s.row.Upgrades++
			if _, err := s.do(s.ctx, "pod", "rm", "--force", "--time=30", fmt.Sprintf("node-%d-pod-0", i-1)); err != nil {
				return "", err
			}
		}
		if err := s.idle(); err != nil {
			return "", err
		}
		if _, err := s.do(s.ctx, "pod", "rm", "--all", "--force", "--time=30"); err != nil {
			return "", err
		}
		generation = 0
	}
	return fmt.Sprintf("%d manifests played: the new pod takes over, then the old one is removed", len(pods)), nil
}

// manifests returns the manifests in a page of the documentation.
func manifests(page string) []string {
	var all []string
	for _, block := range strings.Split(page, "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		if strings.Contains(text, "\nkind: ") {
			all = append(all, text)
		}
	}
	return all
}
