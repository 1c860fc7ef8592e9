# Everything here needs only make and a Python from 3.11 on. The environment lives in .venv inside the checkout.
# The first such Python is taken; `make PYTHON=…` names another.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
STAMP  := $(VENV)/.installed

.PHONY: install demo studio fleet-demo test test-all golden lint audit coverage docs wheel clean

PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

$(BIN)/python:
	test -n "$(PYTHON)" || { echo "No Python from 3.11 on was found; name one: make PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What the program and the studio need, and then all that tests and checks need.
$(READY): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e ".[studio]"
	touch $(READY)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e ".[dev]"
	touch $(READY) $(STAMP)

install: $(STAMP)

demo: $(READY)
	$(BIN)/python -m maquette demo --out runs/demo

# Opens the page in the browser; ends with Ctrl-C.
studio: $(READY)
	$(BIN)/python -m maquette studio

fleet-demo: $(STAMP)
	$(BIN)/python -m tools.fleet_demo --out runs/fleet-demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known holes of the pinned versions, by the advisories of the package index; needs the internet.
audit: | $(BIN)/python
	$(BIN)/python -m venv out/audit
	out/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	out/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

# Two processes of one thread each are quicker than one of two, and do not wait for each other on a busy machine.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: lint
	$(PYTEST) -m "not heavy"

test-all: lint
	$(PYTEST)

# Short runs of everything: the first time their files are recorded, from then on compared to the byte (tools/golden).
golden: $(STAMP)
	$(BIN)/python -m tools.golden

coverage: lint
	$(PYTEST) -m "not heavy" --cov --cov-report=term:skip-covered

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

wheel: $(STAMP)
	$(BIN)/python -m build --no-isolation --outdir dist .

clean:
	rm -rf $(VENV) runs out dist
