# The two commands a newcomer needs are `make demo` and `make test`.
# Each makes (or reuses) a virtual environment, installs what it needs, and runs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A process a core, four at most: each holds about 1.5 GB.
WORKERS ?= -n auto --maxprocesses 4 --dist loadfile
# Compiled programs are kept between runs.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5
export JAX_PLATFORMS ?= cpu
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help demo test test-aot test-slow bench clean

help:
	@echo "make demo       install, train short versions of the main rows, print the table, write the report"
	@echo "make test       install, run the tests"
	@echo "make test-aot   programs compiled for a TPU that is not there (downloads libtpu)"
	@echo "make test-slow  the slow suite too"
	@echo "make bench      install, measure speed and memory: name, value, unit, bar, ok"

# The stamp changes when the requirements change, so installing is done once.
$(VENV)/.installed: setup.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade-strategy only-if-needed -e '.[world,test]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/guardjax demo --out runs/demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q $(WORKERS) -m 'not slow' tests

# Beside the environment, not in it: with libtpu there, JAX would look for a TPU at every start.
LIBTPU := .cache/libtpu
$(LIBTPU)/.installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target $(LIBTPU) \
	    "$$($(BIN)/python -c 'from importlib.metadata import requires; print(next(r.split(";")[0] for r in requires("jax") if r.startswith("libtpu")))')"
	@touch $@

test-aot: $(LIBTPU)/.installed
	PYTHONPATH=$(LIBTPU) $(BIN)/python -m pytest -q -rs -m 'not slow' tests/scale

test-slow: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[notebooks]'
	$(BIN)/python -m pytest -q $(WORKERS) tests

bench: $(VENV)/.installed
	@status=0; for file in benchmarks/*.py; do $(BIN)/python $$file || status=1; done; exit $$status

clean:
	rm -rf $(VENV) .cache build *.egg-info
