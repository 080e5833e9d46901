# Everything a person needs here. `make quickstart` and `make test` install what they need, once, into .venv.
.DEFAULT_GOAL := help
.PHONY: help quickstart sync format check test smoke build bench

# The first Python that is new enough and complete: a self-built one often lacks ssl, and pip is lost without it.
USABLE := import ensurepip, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 /usr/bin/python3.11 python3 /usr/bin/python3; do \
	command -v $$p >/dev/null && $$p -c '$(USABLE)' 2>/dev/null && command -v $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(STAMP) ## from shipped demonstrations to a deployed policy, and a table of how well it does
	@$(BIN)/gcl quickstart

sync: $(STAMP) ## .venv with the pinned dependencies

$(BIN)/pip:
	@"$(PYTHON)" -c '$(USABLE)' || { echo "needs Python 3.11 or newer with venv and ssl (on Debian: apt install python3-venv);" \
		"another one is used by: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@touch $@

format: $(STAMP) ## mends what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: $(STAMP) ## lint, format and types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: $(STAMP) ## the whole suite, file by file on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile

smoke: $(STAMP) ## two minutes: does learning still reach the expert on two robots
	$(BIN)/gcl bench learning --smoke --out runs/smoke

build: $(STAMP) ## the wheel, tried in a fresh environment from another directory
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .
	.ci/try-wheel dist/*.whl "$(PYTHON)"

bench: $(STAMP) ## simulation, training and inference on this machine
	$(BIN)/gcl bench
