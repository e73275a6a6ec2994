# Targets for developers and CI. `make` alone lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

GO ?= go
# Pinned in a module of their own, out of the library's module graph.
TOOL := $(GO) tool -modfile=internal/tools/go.mod

# Platforms that `make cross` compiles for, next to the one it runs on.
CROSS ?= darwin/arm64 freebsd/amd64 windows/amd64 linux/arm linux/386 js/wasm
# Modules beside the one at the root, with dependencies of their own.
MODULES := handoff/handoffprom handoff/handoffquic integration
# Packages that a target works on.
PKG ?= ./...
# Time for each fuzz target, rounds of a benchmark, of a soak test, members to drain,
# upgrades in each mode, upgrades and crashes under systemd. Upgrades of the gauntlet in all modes together, its time
# and the seed of its faults. Rows of make sysfaults. Handovers of make leave. Rounds of make tls-nonces.
# Benchmarks to run.
FUZZTIME ?= 10s
COUNT ?= 1
SOAK ?= 20
DRAINS ?= 2000
UPGRADES ?= 200
BENCH ?= .
RELOADS ?= 20
CRASHES ?= 5
RESTARTS ?= 200
HANDOVERS ?= 100
ROWS ?= all
ROUNDS ?= 10
DURATION ?= 0
SEED ?= 0
# Versions of Go that make tls-go tests with: the oldest that go.mod allows, and the one
# that is installed.
GOS ?= go1.25.0 local
# Whose kernels are booted.
SUITES ?= bullseye,bookworm,trixie,sid
# Peers to measure beside Baton, by how their names begin, and where the table,
# JSON and picture go.
PEERS ?= all
OUT ?= bin/peers-run

.PHONY: help
help: ## list the targets
	@echo "usage: make TARGET [VARIABLE=value]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "variables: PKG=$(PKG) FUZZTIME=$(FUZZTIME) COUNT=$(COUNT) SOAK=$(SOAK) DRAINS=$(DRAINS) UPGRADES=$(UPGRADES) RELOADS=$(RELOADS) CRASHES=$(CRASHES) RESTARTS=$(RESTARTS) ROWS=$(ROWS) ROUNDS=$(ROUNDS) GOS='$(GOS)' HANDOVERS=$(HANDOVERS) DURATION=$(DURATION) SEED=$(SEED) SUITES=$(SUITES) PEERS=$(PEERS) OUT=$(OUT)"

.PHONY: demo
demo: ## upgrade a small service under load, in every mode
	$(GO) run ./cmd/baton-demo demo

.PHONY: test
# Most tests wait for processes: more of them at once than there are processors.
# Without DWARF the linker needs half the time, and without the C library processes start
# sooner.
test: export CGO_ENABLED = 0
test: QUICK := -short -shuffle=on -parallel=8 -ldflags=-w -timeout=10m
test: ## run the quick tests: each promise in each mode
	$(GO) test $(QUICK) $(PKG)
	@set -e; for module in $(MODULES); do (set -x; cd $$module && $(GO) test $(QUICK) ./...); done

.PHONY: test-all
# One package at a time: tests of processes and of the kernel's queues that take
# long need the machine for themselves.
test-all: ## run all tests: whole matrices, systemd, gauntlet, browser, versions
	$(GO) test -p=1 -shuffle=on -ldflags=-w -timeout=20m $(PKG)
	@set -e; for module in $(MODULES); do (set -x; cd $$module && $(GO) test -p=1 -shuffle=on -ldflags=-w -timeout=20m ./...); done

.PHONY: race
race: ## run the quick tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -short -race -p=1 -shuffle=on -timeout=30m $(PKG)

.PHONY: check
check: lint tidy-check cross race test test-all ## everything that must pass before a change goes in

.PHONY: lint
lint: ## formatting, go vet, go fix, staticcheck
	@echo gofumpt -l .
	@files=$$($(TOOL) gofumpt -l .) && if [ -n "$$files" ]; then \
		echo "$$files"; echo "these files are not formatted: make fmt"; exit 1; fi
	$(GO) vet ./...
	$(GO) fix -diff ./...
	$(TOOL) staticcheck ./...
	@set -e; staticcheck=$$($(TOOL) -n staticcheck); for module in $(MODULES); do \
		(set -x; cd $$module && $(GO) vet ./... && $(GO) fix -diff ./... && "$$staticcheck" ./...); done

.PHONY: fmt
fmt: ## format the sources
	$(TOOL) gofumpt -w .

.PHONY: fix
fix: ## rewrite the sources to newer Go, and format them
	$(GO) fix ./...
	$(TOOL) gofumpt -w .

.PHONY: tidy
tidy: ## bring go.mod and go.sum in line with the sources
	$(GO) mod tidy
	cd internal/tools && $(GO) mod tidy
	@set -e; for module in $(MODULES); do (set -x; cd $$module && $(GO) mod tidy); done

.PHONY: tidy-check
tidy-check: ## fail if make tidy would change something
	$(GO) mod tidy -diff
	cd internal/tools && $(GO) mod tidy -diff
	@set -e; for module in $(MODULES); do (set -x; cd $$module && $(GO) mod tidy -diff); done
	$(GO) mod verify

.PHONY: cross
cross: ## vet and compile packages and tests for other platforms
	@status=0; for platform in $(CROSS); do \
		export CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/}; \
		echo "$$platform: go vet, go test -c"; \
		$(GO) vet $(PKG) && $(GO) test -c -o /dev/null $(PKG) || status=1; \
	done; exit $$status

.PHONY: fuzz
# Go reports the end of the time at an unlucky moment as a failure, of the target
# itself and without a place or an input: that alone is none.
fuzz: ## fuzz each target for FUZZTIME
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sort | { \
	status=0; out=$$(mktemp); \
	while IFS=: read -r file fn; do \
		echo "$${fn#func } in $${file%/*}"; \
		{ $(GO) test -run='^$$' -fuzz="^$${fn#func }$$" -fuzztime=$(FUZZTIME) "$${file%/*}" </dev/null 2>&1 && echo passed; } | tee "$$out"; \
		if ! grep -qx passed "$$out" && ! { [ "$$(grep -c -e '--- FAIL' -e '^panic' "$$out")" = 1 ] && \
			grep -A1 '^--- FAIL: Fuzz' "$$out" | grep -qx '    context deadline exceeded'; }; then status=1; fi; \
	done; rm -f "$$out"; exit $$status; }

.PHONY: bench
bench: ## run the benchmarks, COUNT times, into bin/bench.txt (for benchstat), with a table of ratios at the end
	@mkdir -p bin
	cd integration && $(GO) build -o ../bin/ratios ./ratios
	$(GO) test -run='^$$' -bench='$(BENCH)' -benchmem -count=$(COUNT) -p=1 -timeout=120m $(PKG) 2>&1 | tee bin/bench.txt | bin/ratios

.PHONY: cover
cover: ## run the tests, write cover.out, print what they reach of each package
	$(GO) test -timeout=20m -coverprofile=cover.out $(PKG)
	@$(GO) tool cover -func=cover.out | tail -n 1
	@echo "go tool cover -html=cover.out shows the lines"

.PHONY: vuln
vuln: ## look the dependencies up in the Go vulnerability database (online)
	@$(TOOL) govulncheck ./... || { \
		echo "make vuln: vulnerabilities found, or no answer from https://vuln.go.dev: see above. This is not a clean result." >&2; exit 1; }

.PHONY: soak
soak: ## run the tests of handoff and reuseport SOAK times
	$(GO) test -shuffle=on -count=$(SOAK) -timeout=120m ./handoff/... ./reuseport/...

.PHONY: soak-http
soak-http: ## replace an HTTP server UPGRADES times in each mode under load, beside http.Server.Shutdown
	$(GO) run ./handoff/handoffhttp/internal/soak -upgrades $(UPGRADES)

.PHONY: flows
flows: ## replace an HTTP/3 server UPGRADES times in each mode under load, beside a control (ARGS=-h: flags)
	@mkdir -p bin
	cd handoff/handoffquic && $(GO) build -o ../../bin/flows ./internal/soak
	bin/flows -upgrades $(if $(filter file,$(origin UPGRADES)),100,$(UPGRADES)) $(ARGS)

.PHONY: tls-move
tls-move: ## replace an HTTPS server UPGRADES times in each mode, under clients of Go, Python, curl and openssl
	$(GO) run ./handoff/handoffhttp/internal/tlsmove -upgrades $(UPGRADES) $(ARGS)

.PHONY: tls-nonces
tls-nonces: ## kill and stop processes at each step of a move of TLS connections, ROUNDS times, under recorders of nonces
	BATON_TLS_ROUNDS=$(ROUNDS) $(GO) test -run='^TestNoNonceTwice' -v -parallel=8 -timeout=60m ./handoff/handofftls

.PHONY: tls-go
# What the package counts is compared with what crypto/tls of each version counts.
tls-go: ## test handofftls with each of GOS, which Go fetches itself
	@set -ex; for go in $(GOS); do GOTOOLCHAIN=$$go $(GO) test -short ./handoff/handofftls; done

.PHONY: soak-reuseport
soak-reuseport: ## drain DRAINS members of reuseport groups under load
	cd integration && $(GO) run ./drains -drains $(DRAINS)

.PHONY: gauntlet
gauntlet: ## RESTARTS upgrades, or as many as fit into DURATION, under clients and faults (ARGS=-h: flags)
	@mkdir -p bin
	cd integration && $(GO) build -o ../bin/gauntlet ./gauntlet
	bin/gauntlet -restarts $(if $(filter 0,$(DURATION)),$(RESTARTS),$(if $(filter file,$(origin RESTARTS)),0,$(RESTARTS))) -duration $(DURATION) -seed $(SEED) $(ARGS)

.PHONY: sysfaults
sysfaults: ## have ROWS system calls fail for each way of an upgrade, one in each (ROWS=all: an hour)
	BATON_SYSFAULTS=$(ROWS) BATON_SYSFAULTS_SEED=$(SEED) $(GO) test -run='^TestSystemCalls$$' -v -timeout=180m ./handoff

.PHONY: leave
leave: ## two HTTP servers take turns on one port HANDOVERS times, under ab, wrk, h2load and POSTs (root for all runs; ARGS=-h: flags)
	@mkdir -p bin
	cd integration && $(GO) build -o ../bin/leave ./leave
	bin/leave -handovers $(HANDOVERS) $(ARGS)

.PHONY: kernels
kernels: ## run tests on the kernels of Debian SUITES, in emulated machines (ARGS=-h: flags)
	@mkdir -p bin
	cd integration && CGO_ENABLED=0 $(GO) build -o ../bin/kernels ./kernels
	bin/kernels -suites $(SUITES) -artifacts bin/kernels.d $(ARGS)

.PHONY: systemd
systemd: ## boot a systemd, upgrade a unit under load RELOADS times, crash it CRASHES times (root; ARGS=--json)
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -o bin/baton ./cmd/baton
	cd integration && $(GO) build -o ../bin/systemd ./systemd
	bin/systemd -upgrades $(RELOADS) -crashes $(CRASHES) $(ARGS)

.PHONY: containers
containers: ## upgrade a service in containers in each way, under load (root; podman, crun, catatonit; ARGS=--json)
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -o bin/ ./cmd/baton ./cmd/baton-demo
	cd integration && $(GO) build -o ../bin/containers ./containers
	bin/containers $(ARGS)

.PHONY: peers
peers: ## upgrade Baton and its PEERS under the same load: a table, JSON and a picture in OUT (ARGS=-h: flags)
	@mkdir -p bin
	cd integration && $(GO) build -o ../bin/peers ./peers
	bin/peers -peers $(PEERS) -upgrades $(if $(filter file,$(origin UPGRADES)),3,$(UPGRADES)) -out $(OUT) $(ARGS)

.PHONY: man
man: ## write the manual pages of the command into cmd/baton/man/
	rm -f cmd/baton/man/*.1
	$(GO) run ./cmd/baton man cmd/baton/man

.PHONY: hooks
hooks: ## have git check staged Go files before each commit
	git config core.hooksPath .githooks
