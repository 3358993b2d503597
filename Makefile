# What a person runs. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

.PHONY: help
help: ## Lists what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | sort | column -t -s '|'

.PHONY: tools
tools: ## Installs and builds the real parts into .tools/ (model, Ollama, client libraries, cargo-deny)
	@scripts/tools

.PHONY: demo
demo: ## Shows the whole path on this machine, with times: Ollama first, promotion, a kill mid-stream, recovery
	@scripts/tools system model ollama
	@cargo build --bins --example demo
	@cargo run --quiet --example demo
