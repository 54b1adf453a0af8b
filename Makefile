# `make` lists the targets. The scripts in scripts/ do the work and take the same variables.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PART ?=
export PYTHON VENV PART

.PHONY: help run test check demo gone-away bench soak lock clean

help: ## list the targets
	@echo "make TARGET [ARGS=\"...\"] [PYTHON=python3.11] [VENV=.venv]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST)

run: ## run the main daemon of the sample site on SQLite, until Ctrl-C (ARGS="--max-ticks 5")
	@sh scripts/run $(ARGS)

test: ## install what the tests need, and run them (ARGS="-k fork")
	@sh scripts/test $(ARGS)

check: ## check lint, format and types
	@sh scripts/check

demo: ## run a bare loop and a daemon on a private MariaDB that loses their sessions
	@sh scripts/demo $(ARGS)

gone-away: ## measure what cures "MySQL server has gone away": docs/gone-away.md
	@sh scripts/gone-away $(ARGS)

bench: ## run the benchmarks: ratios to bare loops (PART=ticks, ARGS="--quick")
	@sh scripts/bench $(ARGS)

soak: ## run 100,000 units of work under random faults (ARGS="units --seed 7")
	@sh scripts/soak $(ARGS)

lock: ## write the lock file for PYTHON's Django
	@sh scripts/lock

clean: ## remove the virtual environment, caches and the sample site's data
	@sh scripts/clean
