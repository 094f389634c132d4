# Everything runs in .venv, made here from the pins of requirements.txt. EXPERIMENT and OVERLAY choose what is run.
EXPERIMENT ?= params.yaml
OVERLAY ?=
TESTS ?=
PYTHON ?= python3
PORT ?= 5000

BIN := .venv/bin
READY := .venv/.ready
SERVICES := .venv/.services
OPTIONS := --experiment $(EXPERIMENT) $(if $(OVERLAY),--overlay $(OVERLAY))
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1

.PHONY: help setup quick reproduce test test-fast test-services tamper faults fuzz tiny bench lint docs coverage ui lock clean
help:
	@echo "make quick       a first table of four methods, in 3 minutes"
	@echo "make reproduce   from nothing to the comparison table [EXPERIMENT=experiments/NAME.yaml] [OVERLAY=FILE]"
	@echo "make test        the tests"
	@echo "make test-fast   those without whole runs, kills and faults: the science and the experiment file, 2 minutes"
	@echo "make test-services   those that start sshd, an S3 server, PostgreSQL, Chromium"
	@echo "make tamper      hundreds of tamperings that an audit must name"
	@echo "make faults      a hundred random kills, and the same bytes in the end"
	@echo "make fuzz        thousands of files that mean harm"
	@echo "make tiny        whole runs: every experiment in miniature, on generated files"
	@echo "make bench       how fast the program is, into docs/performance.md"
	@echo "make docs        draw the pictures of docs/ again"
	@echo "make lint        linter, formatters, and the layers of the packages"
	@echo "make coverage    how often the intervals hold the truth, by simulation"
	@echo "make ui          MLflow on 127.0.0.1:$(PORT)"
	@echo "make lock        pin again what is installed in .venv"
	@echo "make clean       remove .venv; results stay"

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11 ..."; exit 2; }
	@echo "Setting up .venv (once; downloads several GB, most of it torch)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(SERVICES): $(READY) requirements-services.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-services.txt
	@touch $@

quick: setup
	@robust-distillation reproduce --overlay experiments/overlays/quick.yaml

reproduce: setup
	@robust-distillation reproduce $(OPTIONS)

test: setup
	@python -m pytest -n 2 --dist worksteal -m "not tiny and not services and not tamper" --durations=15

test-fast: setup
	@python -m pytest -n 2 --dist worksteal -m "not slow and not tiny and not services and not tamper"

test-services: $(SERVICES)
	@python -m pytest -n 2 --dist loadfile -m services $(TESTS)

tamper: setup
	@python -m pytest -s -m tamper tests/test_audit.py

fuzz: setup
	@cd tests && python fuzz.py

faults: setup
	@cd tests && python faults.py

tiny: setup
	@python -m pytest -n 2 --dist worksteal -m tiny

bench: setup
	@python benchmarks/bench.py

docs: setup
	@python docs/pictures.py

lint: setup
	@ruff check . && ruff format --check . && snakefmt --check --line-length 120 Snakefile workflow
	@lint-imports --no-cache

coverage: setup
	@python benchmarks/coverage.py

ui: setup
	@robust-distillation track $(OPTIONS)
	@echo "MLflow: http://127.0.0.1:$(PORT) (stop with Ctrl-C)"
	@mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --host 127.0.0.1 --port $(PORT)

# torch pins its own CUDA packages, by platform; so they are left to it.
lock: setup
	@python -m pip freeze --exclude-editable | grep -viE '^(nvidia-[^m]|cuda|triton)' | grep -vixFf requirements-services.txt > requirements.txt
	@{ echo "# The pins of requirements.txt, for conda: conda env create -f environment.yml"; \
	   echo "name: robust-distillation"; echo "channels: [conda-forge]"; echo "dependencies:"; \
	   echo "  - python=3.11"; echo "  - pip"; echo "  - pip:"; sed 's/^/      - /' requirements.txt; } > environment.yml

clean:
	@rm -rf .venv
