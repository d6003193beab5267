# make demo | test | test-full | pytest | bench | docs | lint | wheels | test-wheels | clean: each sets up .venv itself.
PYTHON ?= python3
# the interpreters that `wheels` builds for and `test-wheels` tests with
PYTHONS ?= $(BIN)/python
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find csrc -type f 2>/dev/null) setup.py pyproject.toml constraints.txt
# all tests of a file run in one process, which makes their fixtures once
TWO_AT_A_TIME := -n 2 --dist loadfile
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-full pytest bench docs lint wheels test-wheels clean

demo: $(VENV)/installed
	$(BIN)/f2d demo -o demo --overwrite

test: lint pytest

# the tests of `test` without linting
pytest: $(VENV)/installed
	$(BIN)/python -m pytest -m "not slow" $(TWO_AT_A_TIME)

test-full: $(VENV)/installed lint
	$(BIN)/python -m pytest $(TWO_AT_A_TIME)

bench: $(VENV)/installed
	$(BIN)/python -m bench.run --json build/bench.json

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# sdist, pure wheel and compiled wheels, into dist/
wheels: $(VENV)/installed
	$(BIN)/python packaging/build_wheels.py $(PYTHONS)

# each wheel of dist/ in an environment of its own; PYTHONS must have PyTorch, the other dependencies and pytest
test-wheels: $(VENV)/installed
	$(BIN)/python packaging/try_wheels.py $(PYTHONS)

# The stamp is renewed when the build changes, so that an edited kernel is never tested in its old binary.
$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt "torch==2.13.0" numpy "setuptools>=77" wheel pybind11 ninja
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build dist demo f2d.egg-info .mypy_cache f2d_kernels/*.so
