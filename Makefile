# daemonkit: `make` says what there is. The work is done by scripts/, which take the same variables.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
export PYTHON VENV

.PHONY: help run test check demo gone-away bench lock clean

help: ## this list
	@echo "make TARGET [ARGS=\"...\"] [PYTHON=python3.11] [VENV=.venv]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST)

run: ## the sample site's main daemon, on SQLite, until Ctrl-C (ARGS="--max-ticks 5")
	@sh scripts/run $(ARGS)

test: ## the whole test suite, and all that it needs (ARGS="-k fork")
	@sh scripts/test $(ARGS)

check: ## lint, format, types
	@sh scripts/check

demo: ## a bare loop and a daemonkit loop on a private MariaDB that loses their sessions
	@sh scripts/demo $(ARGS)

gone-away: ## what cures "MySQL server has gone away": the tables of docs/gone-away.md
	@sh scripts/gone-away $(ARGS)

bench: ## the numbers: ratios against bare loops
	@sh scripts/bench $(ARGS)

lock: ## the lock file for PYTHON's Django, written anew
	@sh scripts/lock

clean: ## remove the virtual environment, caches and the sample site's data
	@sh scripts/clean
