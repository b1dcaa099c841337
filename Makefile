# SPDX-License-Identifier: Apache-2.0
#
# `make help` lists the targets. Everything is built statically: a sentry that
# is linked dynamically can't run in its chroot.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export CGO_ENABLED := 0
# Where `make setup` puts Go.
export PATH := /usr/local/go/bin:$(PATH)
export GOFLAGS     := -buildvcs=auto

BIN      := bin
TOOLS    := $(BIN)/tools
GO       := go
PACKAGES := ./...
# Those whose tests drive the programs of bin/. The race detector does not see programs that a
# test starts, and slows the test.
DRIVEN   := ./cmd/sandboxctl ./cmd/sandboxctl/chaos
# Of these, the scripts and the crashes: tests that run beside each other. The others take
# turns, and wait for programs most of the time.
SCRIPTS  := ^(TestScript|TestCrash.*)$$
# Those that read the tree: nothing in them can race.
RULES    := .
# The tests of cmd/sandboxctl that run code of the programs themselves: with the race detector too.
INSIDE   := ^(TestConformance|TestMisbehaviour|TestStubborn|TestStopInterrupted|TestAnotherBoot|TestHostileGofer|TestRacer|TestVerbAlone|TestExitCodes|TestEnvironment|TestCompleteNames|TestLogs|TestRuntimeVersion|TestGetSystemCalls)$$
# The step `sim` runs the mutants of the simulator. TestSimulator runs the same code here.
# The step `budget` runs those that read hundreds of megabytes.
COSTLY    := ^(TestManyMarks|TestConfigTooLong|TestArchiveFaults)$$
NOT_RACED := ^TestMutants$$|$(COSTLY)
FUZZTIME ?= 500000x
RACER    ?= 60s
# The race detector needs cgo; the programs under test do not get it.
TESTENV  := SANDBOXCTL_BIN=$(CURDIR)/$(BIN) $(if $(filter 0,$(shell id -u)),SANDBOXCTL_E2E=require)
# What has ended need not wait a second for races to be told. `make lint` has looked at what vet finds.
RACE     := CGO_ENABLED=1 GORACE=atexit_sleep_ms=0 $(TESTENV) $(GO) test -vet=off -race -shuffle=on -count=1

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: ## install what testing needs and is not there
	@.ci/step setup .ci/setup test

.PHONY: build
build: ## build the four programs into bin/, after installing what that needs
	@mkdir -p $(BIN)
	@.ci/setup build
	@.ci/step build $(GO) build -trimpath -ldflags '-s -w' -o $(BIN)/ ./cmd/sandboxctl ./cmd/sandboxctl-gofer ./cmd/sandboxctl-image ./cmd/sandboxctl-sentry

.PHONY: run
run: build ## converge the examples in a scratch directory and show them
	@.ci/demo $(BIN)

.PHONY: test
test: setup build ## everything: build, lint, unit tests and real sandboxes, race detector on
	@.ci/step lint  make --no-print-directory lint
	@.ci/beside '.ci/vm-image $(BIN)/vm || :; .ci/fuzz compile; .ci/validate $(BIN) compile' .ci/step tests make --no-print-directory -j 3 scripts driven race
	@.ci/step sim   $(GO) test -count=1 ./reconcile/simulator
	@.ci/beside 'make --no-print-directory fuzz FUZZTIME=10000x' .ci/step validate .ci/validate $(BIN)
	@.ci/step budget make --no-print-directory budget
	@.ci/step demo  .ci/demo $(BIN)
	@.ci/step vm    .ci/vm $(BIN) slice

.PHONY: race
race: build ## the tests with the race detector, but for those that `driven` has
	@$(RACE) -p 2 -timeout 40m -skip '$(NOT_RACED)' $(filter-out sandboxctl.dev $(DRIVEN:./%=sandboxctl.dev/%),$(shell $(GO) list $(PACKAGES)))
	@$(RACE) -timeout 40m -run '$(INSIDE)' ./cmd/sandboxctl

DRIVE := $(TESTENV) $(GO) test -vet=off -shuffle=on -count=1 -timeout 40m

.PHONY: scripts
scripts: build ## scripts and crashes, on real sandboxes as root
	@$(DRIVE) -run '$(SCRIPTS)' ./cmd/sandboxctl

.PHONY: driven
driven: build ## the other tests that drive the programs: attacks, faults, chaos, other runtimes' clients; and the rules of the tree
	@$(DRIVE) -p 2 -skip '$(SCRIPTS)|$(COSTLY)' $(DRIVEN) $(RULES)

.PHONY: e2e
e2e: build ## the scripts on real sandboxes only (SCRIPT=name for one)
	$(TESTENV) $(GO) test -count=1 -timeout 10m ./cmd/sandboxctl -run 'TestScript$(if $(SCRIPT),/$(SCRIPT))'

.PHONY: reaction
reaction: build ## how soon a change is acted on among 10 000 manifests, and the daemon's memory
	$(TESTENV) SANDBOXCTL_REACTION=10000 $(GO) test -count=1 -v -timeout 20m ./cmd/sandboxctl -run TestReaction
	$(TESTENV) SANDBOXCTL_REACTION=10000 $(GO) test -count=1 -v -timeout 20m ./desired/manifestdir -run TestManyFiles

.PHONY: waiting
waiting: build ## what eight pairs of processes that wait for a sandbox take, in 30 s
	$(TESTENV) SANDBOXCTL_WAITING=30s $(GO) test -count=1 -v -timeout 20m ./cmd/sandboxctl -run TestWaitingCost

.PHONY: racer
racer: build ## swap the sources of volumes for links while sandboxes start, RACER (60s) each
	SANDBOXCTL_RACER=$(RACER) $(TESTENV) $(GO) test -count=1 -v -timeout 30m ./launcher/hostfs ./cmd/sandboxctl -run '^TestRacer'

.PHONY: attacks
attacks: build ## all hostile images of the tests; `make test` takes a third
	SANDBOXCTL_ATTACKS=all $(TESTENV) $(GO) test -count=1 -v -timeout 30m ./cmd/sandboxctl -run 'TestAttacksImages$$'

.PHONY: crash
crash: build ## kill the daemon at every moment of every operation, as root (about ten minutes)
	SANDBOXCTL_CRASH=all $(TESTENV) $(GO) test -count=1 -timeout 60m ./cmd/sandboxctl -run 'TestCrash$$' -v | grep -v '^=== \|--- PASS'

# Tests that take minutes and hours in full; docs/internals/development.md says how to
# repeat what they find.
HURT := $(TESTENV) $(GO) test -count=1 -v -timeout 24h ./cmd/sandboxctl/chaos

.PHONY: soak
soak: build ## processes killed and stopped at random, ROUNDS (10000) rounds, SEED to repeat one
	ROUNDS=$(or $(ROUNDS),10000) $(HURT) -run 'TestChaos$$'

.PHONY: networked
networked: build ## NETWORKED (200) sandboxes on one network, up and down, with the daemon killed in between
	NETWORKED=$(or $(NETWORKED),200) $(HURT) -run 'TestManyOnANetwork$$'

.PHONY: faults
faults: build ## every system call of the daemon, its pulls and verbs for images failing once and for long, FAULT for one alone
	FAULTS=$(or $(FAULTS),0) LASTING=$(or $(LASTING),0) $(HURT) -run 'TestEveryCall|TestCallKeepsFailing'

.PHONY: vm
vm: setup build ## Debian 12 as it comes, in a virtual machine: scripts, systemd unit, docs, 10 power cuts (an hour)
	@.ci/vm $(BIN) full

.PHONY: powercut
powercut: setup build ## power cuts of that machine while manifests change: CUTS (50), SEED to repeat some
	CUTS=$(or $(CUTS),50) .ci/vm $(BIN) powercut

.PHONY: nasty
nasty: build ## an image of FILES (100000) files with all that layers may have, compared with podman's
	FILES=$(or $(FILES),100000) $(TESTENV) $(GO) test -count=1 -v -timeout 30m ./launcher/image/layers -run AsPodman

.PHONY: programs
programs: setup build ## PostgreSQL, nginx, Redis, Python and node of Debian packages from images: upgrades, kill -9, data intact
	@.ci/programs $(BIN)

.PHONY: validate
validate: build ## the OCI runtime validation suite, as root; docs/internals/conformance.md has its results
	@.ci/validate $(BIN)

$(TOOLS)/.built: .ci/tools/go.mod .ci/tools/go.sum
	@mkdir -p $(TOOLS)
	cd .ci/tools && GOBIN=$(CURDIR)/$(TOOLS) $(GO) install tool
	@touch $@

.PHONY: lint
lint: $(TOOLS)/.built ## golangci-lint, gofumpt, go vet, a tidy go.mod
	$(GO) vet $(PACKAGES)
	$(GO) mod tidy -diff
	@test -z "$$($(TOOLS)/gofumpt -l . | tee /dev/stderr)" || { echo 'run: $(TOOLS)/gofumpt -w .' >&2; exit 1; }
	$(TOOLS)/golangci-lint run

.PHONY: reference
reference: build ## write what docs/reference says of fields, verbs, reasons and events, from the code
	$(TESTENV) $(GO) test -count=1 . ./launcher/specfield ./cmd/sandboxctl -run 'TestReference$$|TestDocumented$$|TestVerbsReference$$' -update

.PHONY: vuln
vuln: $(TOOLS)/.built ## known vulnerabilities (needs the Go vulnerability database)
	$(TOOLS)/govulncheck $(PACKAGES)

.PHONY: fuzz
fuzz: build ## every fuzz target, FUZZTIME (500000x) executions each
	@$(TESTENV) .ci/fuzz $(FUZZTIME)

.PHONY: sim
sim: ## the simulator: STEPS (100000000) or SECONDS of it from SEED on; with EVENTS replay the one run of SEED
	SIM_SEED=$(SEED) SIM_EVENTS=$(EVENTS) SIM_SECONDS=$(SECONDS) SIM_STEPS=$(or $(STEPS),100000000) SIM_WORKERS=$(WORKERS) \
		$(GO) test -count=1 -timeout 0 -v -run '^TestSimulator$$' ./reconcile/simulator

.PHONY: budget
budget: ## what reading hostile manifests and images may cost, without the race detector
	BUDGET=time $(GO) test -count=1 -run '^TestBudget$$' ./desired
	$(GO) test -count=1 -run '$(COSTLY)' ./launcher/image/layers ./launcher/image/puller

.PHONY: bench
bench: build $(TOOLS)/.built ## benchmarks; docs/internals/performance.md says what they mean
	@.ci/bench $(BIN) $(TOOLS)

.PHONY: cover
cover: build ## coverage of the unit tests
	$(TESTENV) $(GO) test -count=1 -coverprofile=$(BIN)/cover.out $(PACKAGES)
	$(GO) tool cover -func=$(BIN)/cover.out | tail -n 1

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
