# `make demo` shows the gateway at work, `make test` tells whether the tree is sound. `make help` lists the rest.

.DEFAULT_GOAL := help
SHELL := /bin/sh
CARGO ?= cargo
# What is passed on: `make run FILE=conf/routing.yaml`, `make bench-load ARGS="--only edgeway,nginx --rounds 3"`.
FILE ?= conf/demo.yaml
ARGS ?=

.PHONY: help setup demo run build test lint docs bench bench-micro bench-load perf pgo image clean

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:
	@scripts/setup

# The development profile: it optimises the dependencies a little, builds in a fraction of the time that a release takes,
# and `make test` finds most of it built already.
demo: setup ## Builds quickly, starts three origins and a gateway, says what to try with curl
	@echo "building (a few minutes the first time; later a moment)"
	@exec $(CARGO) run --locked --bin edgeway -- demo $(ARGS)

run: setup ## Serves FILE (conf/demo.yaml) with the development build
	@exec $(CARGO) run --locked --quiet --bin edgeway -- run $(FILE) $(ARGS)

build: setup ## Builds target/release/edgeway as it is shipped: slow to build, fast to run
	$(CARGO) build --release --locked --bin edgeway

test: setup ## Format, lints, tests, documentation: all that must be green
	@scripts/test

lint: setup ## Format and lints only
	@scripts/test format lints

docs: setup ## Writes docs/configuration.md and docs/metrics.md anew from the types
	BLESS=1 $(CARGO) test --locked --quiet --test it -- docs
	@! git rev-parse --git-dir >/dev/null 2>&1 || git --no-pager diff --stat -- docs

bench: bench-micro bench-load ## The benchmarks in the code, then the load comparison

bench-micro: setup ## The criterion benchmarks
	$(CARGO) bench --locked --benches -- $(ARGS)

bench-load: build ## CPU per request beside nginx, HAProxy and Varnish; options in ARGS
	@scripts/setup bench
	@scripts/bench $(ARGS)

perf: build ## Where the CPU time goes while serving 1 KiB responses
	@scripts/setup bench perf
	@scripts/bench --perf $(ARGS)

pgo: ## A profile-guided build in target/pgo, and what it gains
	@scripts/setup bench pgo
	@scripts/pgo

image: ## The container image `edgeway`
	docker build -t edgeway .

clean: ## Removes all that was built
	$(CARGO) clean
