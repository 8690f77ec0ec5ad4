# Everything a person types. `make demo` and `make test` work on a fresh machine with Python 3.11 or newer and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard protos/openline/v1/*.proto)
# What the contract must stay compatible with: the commit of the last release.
RELEASED := $(shell sed -n 's/^commit = "\(.*\)"$$/\1/p' protos/released.toml)
GENERATE = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos \
	--python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) $(PROTOS)

# Tests start programs by the hundred, each of which would compile itself anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test browser prometheus fuzz chaos rehearse hygiene storm bench docs pictures check audit format proto proto-fresh clean

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

# Most tests wait most of the time, for programs that start and for clocks: more files at a time than cores. In the order of tests/conftest.py.
test: install browser prometheus ## Runs the tests, four files at a time.
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

# What to put before a command that only root may do: nothing where that is not allowed.
AS_ROOT = if [ "$$(id -u)" -eq 0 ]; then as_root=env; elif sudo -n true 2>/dev/null; then as_root="sudo -n"; fi

# Debian's package, since no registry of Python packages has a browser; with a font, without which there is no text.
browser: ## Finds the Chromium that the tests of the live page drive, or installs it where that is allowed.
	@for name in $$OPENLINE_CHROMIUM chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v "$$name" >/dev/null 2>&1 && exit 0; \
	done; \
	export DEBIAN_FRONTEND=noninteractive; $(AS_ROOT); \
	if [ -n "$$as_root" ] && command -v apt-get >/dev/null 2>&1; then \
		echo "installing Chromium"; \
		$$as_root apt-get update -qq && $$as_root apt-get install -y -qq --no-install-recommends chromium fonts-liberation \
			>/dev/null && exit 0; \
	fi; \
	echo "the tests of the live page need Chromium: install it, or say in OPENLINE_CHROMIUM where it is" >&2; exit 1

# Debian's package, unpacked: installed, it would run as a service. The two programs need nothing of what it depends on.
prometheus: ## Finds the Prometheus and promtool that try alerts and dashboard, or unpacks Debian's into .prometheus.
	@command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1 && exit 0; \
	test -d .prometheus && exit 0; \
	fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT; $(AS_ROOT); \
	get() { (cd "$$fresh" && apt-get download -qq prometheus) >/dev/null 2>&1; }; \
	if command -v apt-get >/dev/null 2>&1; then \
		echo "unpacking Prometheus"; \
		{ get || { [ -n "$$as_root" ] && $$as_root apt-get update -qq && get; }; } && \
			dpkg-deb -x "$$fresh"/prometheus_*.deb "$$fresh/unpacked" && mv "$$fresh/unpacked" .prometheus && exit 0; \
	fi; \
	echo "the tests of alerts and dashboard need prometheus and promtool: have them in PATH" >&2; exit 1

fuzz: install ## Sends at least 100,000 arbitrary messages to both ends of both streams and 20,000 requests to the gateway, and plays long lossy stories; minutes.
	OPENLINE_FUZZ_MESSAGES=100000 OPENLINE_FUZZ_REQUESTS=20000 OPENLINE_FUZZ_EXAMPLES=2000 $(BIN)/python -m pytest --timeout=1800 \
		tests/fuzz tests/scenarios/test_lossy_link.py tests/executor/test_core_fuzz.py

CHAOS_SECONDS ?= 200
chaos: install ## Kills, freezes and cuts what makes up an installation, and holds what callers were told against what ran; CHAOS_SECONDS, SEED.
	$(BIN)/python tests/chaos --seconds $(CHAOS_SECONDS) $(if $(SEED),--seed $(SEED))

REHEARSE_SECONDS ?= 600
rehearse: install ## Upgrades an installation from the last release, under load and by process, and takes it back, again and again; REHEARSE_SECONDS.
	OPENLINE_REHEARSE_SECONDS=$(REHEARSE_SECONDS) $(BIN)/python -m pytest -s tests/upgrade/test_rehearsal.py

hygiene: install ## Runs ten thousand processes and looks for what they left behind.
	OPENLINE_HYGIENE_RUNS=10000 $(BIN)/python -m pytest tests/executor/test_hygiene.py

storm: install ## Two thousand executors lose their broker replica at once.
	OPENLINE_STORM_EXECUTORS=2000 $(BIN)/python -m pytest -s tests/e2e/test_storm.py

bench: install ## Measures openline beside NATS, plain gRPC and plain HTTP, and fails when a ratio is much worse than the committed one; a minute and a half.
	$(BIN)/openline-loadtest compare --against loadtest/committed.json

docs: install ## Builds the site into site/; a link that leads nowhere is an error. `python3 -m http.server -d site` shows it.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build

check: install proto-fresh docs ## Lint, format, strict types, contract, site.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	@git cat-file -e '$(RELEASED)^{commit}' || { echo "protos/released.toml names a commit that is not in this checkout: get the whole history (git fetch --unshallow), or clone the repository"; exit 1; }
	$(BIN)/buf breaking --against '.git#commit=$(RELEASED)'

pictures: install browser ## Makes the pictures of the documentation, from a demo under load; five minutes.
	$(BIN)/python tests/pictures

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
	rm -rf $(VENV) $(AUDIT) .prometheus site .mypy_cache .pytest_cache .ruff_cache .hypothesis
