# What a person runs. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

.PHONY: help
help: ## Lists what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | sort | column -t -s '|'

.PHONY: tools
tools: ## Installs and builds the real parts into .tools/ (model, Ollama, client libraries, Kubernetes, cargo-deny)
	@scripts/tools

.PHONY: demo
demo: ## Shows the whole path on this machine, with times: Ollama first, promotion, a kill mid-stream, recovery
	@scripts/tools system model ollama
	@cargo build --bins --example demo
	@cargo run --quiet --example demo

.PHONY: tools-test
tools-test: ## What the tests need of the real parts
	@scripts/tools system model ollama clients formats cluster registry helm trt

.PHONY: lint
lint: ## Format, clippy (pedantic, warnings are errors), documentation
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

.PHONY: engine
engine: ## Builds SmolLM2's engine without a GPU (TensorRT-RTX from PyPI), shows it and checks it
	@scripts/tools system model trt
	@cargo build --locked --bin enginewright
	@scripts/engine

.PHONY: measure-builds
measure-builds: ## Builds SmolLM2 in every precision and form and writes docs/measurements/builds.md
	@scripts/tools system model trt
	CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo build --locked --bin enginewright
	@scripts/measure-builds

.PHONY: licences
licences: ## Licences and sources of all dependencies (builds cargo-deny first)
	@scripts/tools deny
	$${ENGINEWRIGHT_TOOLS:-.tools}/bin/cargo-deny --all-features --locked check licenses bans sources

# Real parts run one after the other: two runtimes that spin at their barriers slow each other tenfold.
.PHONY: test
test: tools-test ## Unit, property and router tests, then the real API server, model, Ollama, clients and processes
	cargo test --locked --lib --bins --test suite
	cargo test --locked --test apiserver
	cargo test --locked --test operator -- --test-threads 1
	cargo test --locked --test chart
	cargo test --locked --test real -- --test-threads 1
	cargo test --locked --test engines -- --test-threads 1

# A whole node of its own: needs root, and nothing of a cluster that runs here.
.PHONY: e2e
e2e: ## The chart, operator and agent on a real one-node Kubernetes with a real model and Ollama; then breaks things (needs root; installs its parts)
	@scripts/tools system model ollama helm cluster node trt
	cargo test --locked --test node -- --test-threads 1 --nocapture

# The same tests with more of everything.
.PHONY: soak
soak: tools-test ## Thousands of runs: planner histories, mutations, disconnects, kills, constrained answers, the network's texts (about an hour)
	PROPTEST_CASES=4096 cargo test --locked --lib planner::
	ENGINEWRIGHT_SOAK=1 ENGINEWRIGHT_REQUESTS=300 ENGINEWRIGHT_ANSWERS=20 ENGINEWRIGHT_DISCONNECTS=10000 \
	  cargo test --locked --test real -- --test-threads 1 --nocapture \
	  hostile_models:: structured disconnects:: killing_the_engine network::

# Optimises our own code and takes the dependencies as the tests compiled them (level 2).
.PHONY: bench
bench: ## The speed and memory figures of the README (about 10 minutes; leave the machine alone meanwhile)
	@scripts/tools system model ollama
	CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo build --locked --bins --examples
	$${CARGO_TARGET_DIR:-target}/debug/examples/speed

.PHONY: shim
shim: ## Compiles libenginewright_trt.so for the TensorRT whose headers are in TENSORRT_HEADERS (default: this machine's)
	scripts/shim $(or $(TENSORRT_HEADERS),/usr/include/$(shell uname -m)-linux-gnu) $${CARGO_TARGET_DIR:-target}/libenginewright_trt.so

.PHONY: generated
generated: ## Refreshes the committed files that are generated from the code
	cargo run --locked --bin enginewright -- crds --dir crds
	UPDATE_GENERATED=1 cargo test --locked --test suite generated
	UPDATE_GENERATED=1 cargo test --locked --lib controller::workloads
	@scripts/tools helm
	UPDATE_GENERATED=1 cargo test --locked --test chart
