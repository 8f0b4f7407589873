# `make help` lists what there is. Everything needs Go; `make test` also a C
# compiler (for the race detector) and PostgreSQL's programs.

GOLANGCI_LINT_VERSION := v2.15.0
WORKFLOWCHECK_VERSION := v0.6.0
GOVULNCHECK_VERSION   := v1.9.0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
ARGS    ?=
# How long `make fuzz` gives each target.
FUZZTIME ?= 10s
# The race detector slows some tests down by a factor of ten.
TESTFLAGS ?= -race -timeout=20m

# The nested modules, those that are there: dev/, bench/, chaos/.
MODULES := . $(patsubst %/go.mod,%,$(wildcard */go.mod))

# $(call in-each,COMMAND) runs it in each module, in all of them even if it fails in one.
in-each = @bad=0; for m in $(MODULES); do echo "$(1): $$m"; (cd $$m && $(1)) || bad=1; done; exit $$bad

# A tool's directory carries its version, so that a new one is built anew.
TOOLS         := $(CURDIR)/bin/tools
GOLANGCI_LINT := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION)/golangci-lint
WORKFLOWCHECK := $(TOOLS)/workflowcheck-$(WORKFLOWCHECK_VERSION)/workflowcheck
GOVULNCHECK   := $(TOOLS)/govulncheck-$(GOVULNCHECK_VERSION)/govulncheck

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile
	@echo; echo "  make dev ARGS='--subscriptions 1000' passes flags on; see bin/drayman-dev --help."

.PHONY: dev
dev: bin/drayman-dev ## Run everything on this machine: Temporal, UI, a fake shop, SQLite, API, worker; state in ./var
	bin/drayman-dev $(ARGS)

.PHONY: build
build: bin/drayman bin/drayman-dev ## Build bin/drayman (static) and bin/drayman-dev

# The go command knows best what is out of date.
.PHONY: bin/drayman
bin/drayman:
	CGO_ENABLED=0 go build -trimpath -ldflags '-X drayman/cmd.Version=$(VERSION)' -o $@ ./cmd/drayman

# With the go command's default flags, so that `go -C dev test` finds the same
# compiled Temporal server in the build cache.
.PHONY: bin/drayman-dev
bin/drayman-dev:
	@test -e $@ || echo 'Building bin/drayman-dev. The first time, this compiles a Temporal server: about 6 minutes on two cores.'
	go build -C dev -o ../$@ .

.PHONY: test
test: build ## Run all tests, on SQLite, PostgreSQL and a real Temporal server
	@command -v "$$(go env CC)" >/dev/null || { \
		echo "make test: go test -race needs a C compiler (Debian: apt-get install gcc libc6-dev)" >&2; exit 1; }
	TEST_DRAYMAN=$(CURDIR)/bin/drayman bin/drayman-dev env -- go test $(TESTFLAGS) ./...
	@# Without -race, which would compile the Temporal server a second time.
	go test -C dev ./...
	@# It kills processes by the dozen: alone, so that nothing else is slow meanwhile.
	TEST_DRAYMAN=$(CURDIR)/bin/drayman TEST_DRAYMAN_DEV=$(CURDIR)/bin/drayman-dev go test -C chaos -timeout=30m ./...

# -fuzz takes one target at a time. The first time, all that a package uses is
# compiled anew, to see what an input reaches: minutes, for api.
.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZTIME (10s), one after the other, up to the first finding; FUZZTIME=3m
	@set -e; for p in $$(grep -rl --include='*_test.go' --exclude-dir=dev --exclude-dir=bench '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for f in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(f \*testing\.F).*/\1/p' $$p/*_test.go); do \
			echo "$$p $$f"; go test $$p -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME); \
		done; \
	done

.PHONY: bench
bench: build ## Measure a billing run on real processes; ARGS='--charges 20000 --rounds 3'
	bin/drayman-dev env -- go -C bench run . $(ARGS)

.PHONY: chaos
chaos: build ## Put real processes through a fault campaign of about 3 minutes; ARGS='--seed 7 --shop-idempotent=false', '--seeds 10 --both-modes'
	go -C chaos run . $(ARGS)

.PHONY: check
check: check-tree check-tidy check-vet check-format check-lint check-workflows check-vuln check-compose ## Run all static checks

.PHONY: check-tree
check-tree:
	.ci/tree

.PHONY: check-tidy
check-tidy:
	$(call in-each,go mod tidy -diff)

.PHONY: check-vet
check-vet:
	$(call in-each,go vet ./...)

.PHONY: check-format
check-format: $(GOLANGCI_LINT)
	$(GOLANGCI_LINT) fmt --diff # of the nested modules too

.PHONY: check-lint
check-lint: $(GOLANGCI_LINT)
	$(call in-each,$(GOLANGCI_LINT) run ./...)

.PHONY: check-workflows
check-workflows: $(WORKFLOWCHECK)
	$(WORKFLOWCHECK) ./...

# Only what is shipped: what dev/ embeds runs on loopback, on a developer's machine.
.PHONY: check-vuln
check-vuln: $(GOVULNCHECK)
	.ci/vulncheck $(GOVULNCHECK) ./...

.PHONY: check-compose
check-compose:
	@if docker compose version >/dev/null 2>&1; then docker compose config --quiet && echo 'docker compose config: ok'; \
	else echo 'not run: docker compose config (docker compose is not installed; the tests in cmd/ read the file all the same)'; fi

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format all Go files
	$(GOLANGCI_LINT) fmt

.PHONY: tidy
tidy: ## Tidy go.mod and go.sum of each module
	$(call in-each,go mod tidy)

.PHONY: tools
tools: $(GOLANGCI_LINT) $(WORKFLOWCHECK) $(GOVULNCHECK) ## Build the tools of `make check`, pinned, into bin/tools

$(GOLANGCI_LINT):
	GOFLAGS= GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)

$(WORKFLOWCHECK):
	GOFLAGS= GOBIN=$(@D) go install go.temporal.io/sdk/contrib/tools/workflowcheck@$(WORKFLOWCHECK_VERSION)

$(GOVULNCHECK):
	GOFLAGS= GOBIN=$(@D) go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)

.PHONY: secrets
secrets: ## Make the files that docker-compose.yml reads, those that are missing; SHOP_API_KEY and SHOP_API_SECRET may be given
	@mkdir -p -m 700 secrets
	@cd secrets && set -e; make() { test -e "$$1" || { cat >"$$1" && chmod 444 "$$1" && echo "made secrets/$$1"; }; }; \
	od -An -N24 -tx1 /dev/urandom | tr -d ' \n' | make postgres_password; \
	printf 'postgres://drayman:%s@postgres:5432/drayman?sslmode=disable' "$$(cat postgres_password)" | make database_url; \
	printf '%s' "$${SHOP_API_KEY:-dev-key}" | make shop_api_key; \
	printf '%s' "$${SHOP_API_SECRET:-dev-secret}" | make shop_api_secret

.PHONY: clean
clean: ## Remove bin/; state in ./var stays
	rm -rf bin
