# The two commands: `make devnet` shows that it runs, `make test` shows that it is right. Both install what they need.
# `make help` lists the rest. Options go in ARGS: make devnet ARGS="--nodes 4 --duration 30 --tps 500"

SHELL := /bin/bash
CARGO ?= cargo
CARGO_TARGET_DIR ?= target
ARGS ?=
export CARGO_TARGET_DIR
# A Python with an Ed25519 package, made by scripts/setup.sh --python.
EBPF_VENV ?= $(CARGO_TARGET_DIR)/venv
export EBPF_VENV := $(abspath $(EBPF_VENV))
# Tools that cargo installed.
export PATH := $(PATH):$(HOME)/.cargo/bin
# The same compiler in every target: changing it rebuilds RocksDB. Asked lazily, because setup may have just installed it.
compiler = $(if $(shell command -v ccache),CC="ccache gcc" CXX="ccache g++",)
# Always the whole workspace: features unify once, and nothing is compiled twice.
build = $(compiler) $(CARGO) build --workspace --bins --locked

.DEFAULT_GOAL := help
.PHONY: help devnet test setup setup-test build fmt fmt-check lint tidy kernel-verify unit planted bench bench-guard fuzz jupyter jupyter-check test-jupyter test-jupyter-browser clean

help: ## This list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

devnet: setup build ## Run a four-validator network with load here. ARGS="--duration 30 --tps 500"
	@$(CARGO_TARGET_DIR)/debug/ebpf-lab devnet $(ARGS)

test: setup-test fmt-check lint tidy kernel-verify unit planted jupyter-check ## Everything: set-up, lint, unit, simulation, kernel, namespace and notebook tests.

setup: ## Install what is missing to build and run.
	@scripts/setup.sh

setup-test:
	@scripts/setup.sh --kernel --python

build: ## Build all programs.
	$(build)

fmt: ## Format all code.
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

lint: ## Lint all code; warnings are errors.
	$(compiler) $(CARGO) clippy --workspace --all-targets --locked -- -D warnings

tidy: ## The project's own rules: sizes, docs, dependency table.
	$(compiler) $(CARGO) run -q -p xtask --locked -- tidy
	$(compiler) $(CARGO) run -q -p xtask --locked -- check-deps

kernel-verify: ## Rebuild the BPF objects and compare them with the committed ones.
	$(compiler) $(CARGO) run -q -p xtask --locked -- kernel verify

# Some tests run the programs, so these are built first. nextest runs every test in a process of its own.
unit: build ## All tests.
	$(compiler) $(CARGO) $(if $(shell command -v cargo-nextest),nextest run,test) --workspace --locked

# Controls of the simulator: nodes that break a rule must be found. Their switch exists in no other build.
planted:
	$(compiler) $(CARGO) $(if $(shell command -v cargo-nextest),nextest run,test) --package sim --features planted-bugs --locked planted

bench: ## Throughput and finality of a devnet on this machine.
	$(build)
	@$(CARGO_TARGET_DIR)/debug/ebpf-lab devnet --duration 60 --tps 500 $(ARGS)

bench-guard: ## What the kernel guard costs, beside others: target/bench/guard.json. ARGS="--quick" leaves out the devnets.
	@scripts/setup.sh --bench
	$(compiler) $(CARGO) run -q -p xtask --locked -- bench-guard $(ARGS)

fuzz: ## Fuzz what reads bytes of strangers, each target for ARGS seconds: make fuzz ARGS=60
	$(compiler) $(CARGO) run -q -p xtask --locked -- fuzz $(ARGS)

jupyter: ## JupyterLab with the lessons, on loopback.
	@jupyter/lab up $(ARGS)

jupyter-check: ## The lessons: all read, those that changed and a rotating sample executed; kernels and language servers tested.
	@jupyter/lab install && jupyter/lab test --ci

test-jupyter: ## Execute the lessons again and compare; installs their languages first.
	jupyter/lab install && jupyter/lab test --all

test-jupyter-browser: ## Look at the notebooks and the site in a headless Chromium; installs it first.
	scripts/setup.sh --browser
	jupyter/lab install && jupyter/lab browser

clean: ## Remove everything built here, the devnet's folder included.
	$(CARGO) clean
