# The two that a newcomer needs: `make image` and `make test`. Each sets up what it needs.

SHELL := /bin/sh
BIN := .venv/bin
IMAGE ?= x86.img
RELEASE ?= 13
JOBS ?= 2
# Each file of tests stays in one process, with what its tests share.
SPREAD := --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup test-setup image boot test test-long check lint format docs bench clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: ## Install Debian packages, the virtual environment and the project
	@tools/setup

test-setup:
	@tools/setup tools/apt-packages-test
	@tools/grub-modules grub-efi-arm64-bin

image: setup workspace/coreimage.toml ## Build, publish, import and flash: ./x86.img
	@$(BIN)/coreimage pipeline run debian-core --release $(RELEASE) --channel edge --output $(IMAGE)

workspace/coreimage.toml:
	@$(BIN)/coreimage init workspace

boot: ## Start ./x86.img with its console in this terminal
	@test -s $(IMAGE) || $(MAKE) --no-print-directory image
	@$(BIN)/coreimage boot $(IMAGE)

test: test-setup ## Run every check: lint, types, tests, and the journey with booted machines
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest $(SPREAD) -m 'not long' tests

test-long: test-setup ## Run also the series that take long
	@tools/setup tools/apt-packages-long
	@tools/foreign-programs qemu-aarch64 qemu-arm
	@$(BIN)/python -m pytest $(SPREAD) -m long tests

check: lint ## Run what needs neither the network nor a guest
	@$(BIN)/python -m pytest $(SPREAD) -m 'not system and not long' tests

lint: ## Check style, types and the documentation
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy
	@$(BIN)/python tools/make_docs.py --check

format: ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: ## Write the reference pages that come from the code
	@$(BIN)/python tools/make_docs.py

bench: setup ## Measure what each stage costs
	@$(BIN)/python benchmarks/stages.py

clean: ## Remove what was built, but keep the workspace with its keys
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	rm -f x86.img *.console.log
