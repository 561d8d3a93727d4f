# make run · make test · make check · make bench      (all set up their own .venv; nothing is installed globally)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
FORECAST := .venv-forecast
FORECAST_PIP := $(FORECAST)/bin/python -m pip --disable-pip-version-check --quiet --no-input

# Tests start some hundreds of programs; each would compile every module again that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: same-python help run test explore check lint types layers bench bench-policies bench-forecast lock clean

help:
	@echo "make run     set up and play the demo: a real daemon against an embedded EC2 (ARGS='--for 40s --out out')"
	@echo "make test    set up and pass the tests"
	@echo "              (on another Python: make test PYTHON=python3.13 VENV=.venv-3.13)"
	@echo "make explore the tests in another order, and properties with other examples, each time"
	@echo "make check   what CI runs: lint, types, layers, then make test"
	@echo "make bench   benchmarks, as ratios to a calibration kernel or a peer in the same run"
	@echo "make bench-policies  the example objective against all peers, on the recordings in AUTOSCALER_TRACES"
	@echo "make bench-forecast  the forecaster against statistical libraries"
	@echo "make lock    compile the hashed locks again from pyproject.toml"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "CPython 3.11 or later is needed; name it with PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

# An environment that is there keeps its Python; another one that is asked for would be passed over without a word.
same-python: $(BIN)/python
	@[ "$(origin PYTHON)" != "command line" ] || { [ "$$($(PYTHON) --version)" = "$$($(BIN)/python --version)" ] || \
	  { echo "$(VENV) runs on $$($(BIN)/python --version); name another folder for $(PYTHON) with VENV=..., or make clean"; exit 2; }; }

# --no-build-isolation with the build backend in the lock: nothing is installed that has no hash. --no-deps, since a lock is
# whole: pip would otherwise look for `coverage[toml]`, find a newer release than the lock's `coverage`, and refuse it.
$(VENV)/base.stamp: requirements.lock pyproject.toml | same-python
	$(PIP) install --require-hashes --no-deps -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/base.stamp
	$(PIP) install --require-hashes --no-deps -r requirements-dev.lock
	@touch $@

# Only where libvirt's headers are: libvirt-python is compiled here. What compiles it comes first, with its hash too.
LIBVIRT := $(shell pkg-config --exists libvirt 2>/dev/null && echo $(VENV)/libvirt.stamp)
$(VENV)/libvirt.stamp: requirements-libvirt.lock $(VENV)/base.stamp
	sed -n '/^setuptools==/,$$p' requirements-libvirt.lock > $(VENV)/setuptools.lock
	$(PIP) install --require-hashes --no-deps -r $(VENV)/setuptools.lock
	$(PIP) install --require-hashes --no-deps --no-build-isolation -r requirements-libvirt.lock
	@touch $@

$(VENV)/bench.stamp: requirements-bench.lock $(VENV)/dev.stamp
	$(PIP) install --require-hashes --no-deps -r requirements-bench.lock
	@touch $@

run: $(VENV)/base.stamp
	@$(BIN)/autoscaler demo $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

layers: $(VENV)/dev.stamp
	$(BIN)/lint-imports --no-cache

test: $(VENV)/dev.stamp $(LIBVIRT)
	$(BIN)/python -m pytest $(ARGS)

explore: $(VENV)/dev.stamp $(LIBVIRT)
	$(BIN)/python -m pytest --hypothesis-profile=explore --randomly-seed=$$(date +%s) $(ARGS)

check: lint types layers
	$(MAKE) test

bench: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks $(ARGS)

# The libraries that the forecaster is judged against need another pandas, so they have an environment of their own.
$(FORECAST)/ready.stamp: requirements-forecast.lock pyproject.toml
	$(PYTHON) -m venv $(FORECAST)
	$(FORECAST_PIP) install --require-hashes --no-deps -r requirements-forecast.lock
	$(FORECAST_PIP) install --no-deps --no-build-isolation -e .
	@touch $@

bench-policies: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks policies $(ARGS)

bench-forecast: $(FORECAST)/ready.stamp
	$(FORECAST)/bin/python -m benchmarks forecast $(ARGS)

UV_LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url
UV_COMPILE = $(UV_LOCK) pyproject.toml
# All extras but libvirt, which could not be installed where libvirt's headers are not.
EXTRAS = --extra sim --extra dask --extra remote-write
lock: $(VENV)/dev.stamp
	$(UV_COMPILE) --group build -o requirements.lock
	$(UV_COMPILE) --group build --group dev $(EXTRAS) -c requirements.lock -o requirements-dev.lock
	$(UV_COMPILE) --group bench $(EXTRAS) -c requirements-dev.lock -o requirements-bench.lock
	$(UV_LOCK) --group libvirt -o requirements-libvirt.lock
	$(UV_COMPILE) --group build --group bench-forecast -c requirements.lock -o requirements-forecast.lock

clean:
	rm -rf $(VENV) $(FORECAST) .pytest_cache .mypy_cache .ruff_cache build dist
