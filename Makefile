# Everything a person types. `make demo` and `make test` work on a fresh machine with Python 3.11 or newer and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard protos/openline/v1/*.proto)
# What the contract must stay compatible with: the last release, or the last commit before there is one.
RELEASED := $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || echo HEAD)
GENERATE = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos \
	--python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) $(PROTOS)

.PHONY: help install demo test fuzz chaos hygiene storm bench check audit format proto proto-fresh clean

help: ## Says what there is.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

install: $(VENV)/installed ## Creates .venv with everything in it; does nothing when it is up to date.

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("openline needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install ## Runs everything in one box, with a Kubernetes API server for the real kubectl, until Ctrl-C.
	@exec $(BIN)/openline-demo

test: install ## Runs the tests, two files at a time.
	$(BIN)/python -m pytest -n 2 --dist loadfile

fuzz: install ## Sends at least 100,000 arbitrary messages to both ends of both streams and 20,000 requests to the gateway, and plays long lossy stories; minutes.
	OPENLINE_FUZZ_MESSAGES=100000 OPENLINE_FUZZ_REQUESTS=20000 OPENLINE_FUZZ_EXAMPLES=2000 $(BIN)/python -m pytest --timeout=1800 \
		tests/fuzz tests/scenarios/test_lossy_link.py tests/executor/test_core_fuzz.py

CHAOS_SECONDS ?= 200
chaos: install ## Kills, freezes and cuts what makes up an installation, and holds what callers were told against what ran; CHAOS_SECONDS, SEED.
	$(BIN)/python tests/chaos --seconds $(CHAOS_SECONDS) $(if $(SEED),--seed $(SEED))

hygiene: install ## Runs ten thousand processes and looks for what they left behind.
	OPENLINE_HYGIENE_RUNS=10000 $(BIN)/python -m pytest tests/executor/test_hygiene.py

storm: install ## Two thousand executors lose their broker replica at once.
	OPENLINE_STORM_EXECUTORS=2000 $(BIN)/python -m pytest -s tests/e2e/test_storm.py

bench: install ## Measures openline beside NATS, plain gRPC and plain HTTP, and fails when a ratio is much worse than the committed one; a minute and a half.
	$(BIN)/openline-loadtest compare --against loadtest/committed.json

check: install proto-fresh ## Lint, format, strict types, contract.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against '.git#ref=$(RELEASED)'

# Of its own: pip-audit's dependencies are not ours, and must not decide which versions of ours are installed.
AUDIT := .venv-audit
PIP_AUDIT ?= pip-audit==2.10.1

# Strict: without it, a package that the service knows nothing of is skipped, and nothing found is said all the same.
audit: $(AUDIT)/bin/pip-audit ## Asks the public advisory service for known vulnerabilities of the pinned versions; needs the network.
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt

$(AUDIT)/bin/pip-audit:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check '$(PIP_AUDIT)'

format: install ## Formats the code and the contract.
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/buf format -w

proto: install ## Generates the code of the contract.
	$(call GENERATE,protos)

proto-fresh: install
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(call GENERATE,"$$fresh") && \
	for file in "$$fresh"/openline/v1/*; do \
		cmp -s "$$file" "protos/openline/v1/$$(basename "$$file")" || \
		{ echo "protos/openline/v1/$$(basename "$$file") is stale: run make proto"; exit 1; }; \
	done

clean: ## Removes what the other targets made.
	rm -rf $(VENV) $(AUDIT) .mypy_cache .pytest_cache .ruff_cache .hypothesis
