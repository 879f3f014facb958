# `make run` starts Viva on a fresh machine, `make test` checks everything; `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# rustup installs here, and make's own shell may not know it yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)

TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
STEP := scripts/step.sh
# Options for `viva serve`, for instance: make run SERVE='--listen 127.0.0.1:9000'
SERVE ?= --dev

# The stories in the browser run the server that the Rust tests run: `cargo build` would unify features without the
# dev-dependencies, and so compile most crates a second time.
export VIVA_BIN := $(TARGET_DIR)/debug/viva

.PHONY: help run setup setup-test web build test fmt lint unit loadtest-test web-test e2e interop bench loadtest nettest fuzz clean

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

run: build ## Install what is missing, build, and start the server with a dev key
	@$(TARGET_DIR)/release/viva models pull || true
	@exec $(TARGET_DIR)/release/viva serve $(SERVE)

setup: ## Install what building and running needs
	@scripts/setup.sh

setup-test: ## Install what the tests need, too
	@scripts/setup.sh --test

web: setup ## Build the web page
	@scripts/web.sh

build: web ## Build the server for use (release)
	@$(STEP) "Building the server (the first time takes some minutes)" cargo build --release --locked

test: setup-test fmt lint unit loadtest-test web-test e2e interop ## Run every check and test
	@echo "All checks passed."

fmt: ## Check the formatting
	@$(STEP) "Formatting" cargo fmt --all --check

lint: ## Run the linter and build the code's documentation; warnings are errors
	@$(STEP) "Clippy" cargo clippy --locked --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(STEP) "Documentation" cargo doc --locked --no-deps --lib

unit: ## Run the Rust tests
	@$(STEP) "Rust tests" cargo test --locked

# --workspace, as `-p loadtest` would unify features anew, and so compile most crates a second time.
loadtest-test: ## Test the load test with a small call, and the link with faults
	@$(STEP) "Building the server (debug)" cargo test --locked --no-run
	@$(STEP) "Load test, a small call" cargo test --locked --workspace --bin loadtest --bin faultlink --test call

web-test: ## Check and test the web page's code
	@if [ -f web/package.json ]; then \
		$(STEP) "Web lint" npm --prefix web run --silent lint; \
		$(STEP) "Web tests" npm --prefix web test --silent; \
	fi

e2e: setup-test ## Run the stories in real browsers
	@scripts/web.sh
	@$(STEP) "Building the server (debug)" cargo test --locked --no-run
	@if [ -f tests/e2e/package.json ]; then $(STEP) "Stories in Chromium" npm --prefix tests/e2e test --silent; fi

interop: setup-test ## Run the tests with clients that others wrote
	@$(STEP) "Building the server (debug)" cargo test --locked --no-run
	@if [ -d tests/interop ]; then $(STEP) "Other clients" .venv/bin/python -m pytest -q tests/interop; fi

bench: setup ## Run the benches
	@cargo bench --locked

loadtest: setup ## Load a release build with bots, and print the table of figures
	@$(STEP) "Building server and bots (the first time takes some minutes)" cargo build --release --locked --workspace
	@VIVA_BIN=$(TARGET_DIR)/release/viva $(TARGET_DIR)/release/loadtest table

nettest: setup-test ## Measure calls in Chromium across a link with faults (needs root)
	@scripts/web.sh
	@$(STEP) "Building the server (debug)" cargo test --locked --no-run
	@$(STEP) "Building the link with faults" cargo build --locked -p faultlink
	@FAULTLINK_BIN=$(TARGET_DIR)/debug/faultlink npm --prefix tests/e2e run --silent nettest

fuzz: ## Run libFuzzer on every parser, FUZZ_SECS each
	@scripts/fuzz.sh $(or $(FUZZ_SECS),60)

clean: ## Remove what was built; keeps models and data
	@cargo clean
	@rm -rf web/dist web/node_modules tests/e2e/node_modules test-output .venv .venv-agents
