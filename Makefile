# The commands of this project; `make help` lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

DATA ?= .holon/data
LISTEN ?= 127.0.0.1:8080
CLUSTER ?= .holon/cluster
export CARGO_TERM_COLOR ?= auto

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: up
up: build ## build and start everything with demo data, and print where to look
	./target/release/holon serve --data "$(DATA)" --listen "$(LISTEN)" --demo

.PHONY: cluster
cluster: build ## start three nodes with PostgreSQL, NATS, Redis and S3 on this machine, and stay; Ctrl-C ends all of it
	scripts/setup
	cargo build --release --locked -p holon-lab
	./target/release/holon-lab --directory "$(CLUSTER)" up

.PHONY: cluster-down
cluster-down: ## end the cluster from elsewhere, or what a killed one left behind
	@test -x target/release/holon-lab || cargo build --release --locked -p holon-lab
	./target/release/holon-lab --directory "$(CLUSTER)" down

.PHONY: build
build: console/dist/index.html ## build the console and the release binary
	cargo build --release --locked -p holon

console/dist/index.html: console/node_modules/.package-lock.json $(shell find console/src console/public console/index.html console/vite.config.ts console/tsconfig*.json -type f 2>/dev/null)
	cd console && npm run build
	@touch $@

console/node_modules/.package-lock.json: console/package.json console/package-lock.json
	cd console && npm ci --no-audit --no-fund
	@touch $@

.PHONY: test
test: ## set up what the tests need and run them all
	scripts/test

.PHONY: bench
bench: console/dist/index.html ## run every benchmark against its peer and write docs/benchmarks.md
	scripts/bench

.PHONY: chaos
chaos: console/dist/index.html ## break a cluster in every way under load, check it, and write the table of docs/reliability.md
	scripts/chaos

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: deny
deny: ## check licences and advisories of all dependencies (needs cargo-deny; advisories need a network)
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check

.PHONY: api
api: ## write the OpenAPI document and the console's types from it
	cargo run --quiet -p holon -- openapi > console/openapi.json
	cd console && npm run api

.PHONY: clean
clean: ## remove the demo's data and everything that was built
	rm -rf .holon target console/dist console/node_modules .venv
