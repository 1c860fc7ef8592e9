# Everything here needs only Python 3.11 and make. The environment lives in .venv inside the checkout.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: install demo test test-all lint clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m maquette demo --out runs/demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

# Two processes of one thread each are quicker than one of two, and do not wait for each other on a busy machine.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: lint
	$(PYTEST) -m "not heavy"

test-all: lint
	$(PYTEST)

clean:
	rm -rf $(VENV) runs out
