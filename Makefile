# Two targets matter to a newcomer: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PURE := tests/unit/core tests/unit/wire
# What measures rates or times of real processes runs alone. The rest shares the processors:
# tests that wait beside tests that compute, so that neither lets the machine stand idle.
TIMED := tests/e2e/test_limits.py tests/hostile/test_floods.py \
  $(patsubst %,tests/netns/test_%.py,conditions lab lan mirrors nat relay)
LONG := -q -m slow --timeout 3600 -p tests.reliability --keep-table docs/reliability.md

.PHONY: demo test coverage lint bench torture fuzz mutants proto lock clean

# The environment: pinned versions with their hashes, then the project itself.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)  ## real nodes on loopback: share, swarm, kill -9, resume, verify
	$(BIN)/furymesh demo

test: $(READY) lint coverage  ## everything that must hold before a change lands
	$(BIN)/python -m pytest -q -m "not slow" -n auto --maxprocesses 8 --dist worksteal \
	  $(addprefix --ignore=,$(PURE) $(TIMED))
	$(BIN)/python -m pytest -q -m "not slow" $(TIMED)

coverage: $(READY)  ## the tests of the core and the wire, which must take every branch there
	$(BIN)/coverage run -m pytest -q -m "not slow" $(PURE)
	$(BIN)/coverage report

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## furymesh beside libtorrent, aria2 and rsync; see docs/performance.md
	$(BIN)/python -m tests.bench

torture: $(READY)  ## the long forms of the tests: many kills, many seeds; less than an hour
	$(BIN)/python -m pytest $(LONG) -n 3 --dist worksteal $(addprefix --ignore=,$(TIMED))
	$(BIN)/python -m pytest $(LONG) $(TIMED)

fuzz: $(READY)  ## every parser on hostile input; FUZZ_SECONDS for each, 300 unless told
	$(BIN)/python -m tests.fuzz

# Beside the environment, not in it: nothing else needs these four.
$(VENV)/mutmut: | $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ \
	  mutmut==3.8.1 libcst==1.9.0 setproctitle==1.3.8 textual==8.2.8

mutants: $(VENV)/mutmut  ## small changes of the code that no test notices; a quarter of an hour
	PYTHONPATH=$(abspath $<) $(BIN)/python -m mutmut run
	PYTHONPATH=$(abspath $<) $(BIN)/python -m mutmut results

proto: $(READY)  ## regenerate furymesh/wire/pb after a change in proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=furymesh/wire/pb --pyi_out=furymesh/wire/pb proto/furymesh.proto

lock:  ## resolve the dependencies anew and pin them with hashes
	$(BIN)/pip-compile --quiet --extra dev --extra sftp --extra watch --generate-hashes --strip-extras --allow-unsafe \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header \
	  --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) build dist mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis .demo .coverage
