# Every target works from a clean clone: it builds .venv first where it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
DEMO_OUT ?= demo

.PHONY: setup demo test fast-tests test-slow lint docs bench clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "modalgate needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/.tested: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: .venv/.installed
	$(BIN)/modalgate demo --out $(DEMO_OUT) --overwrite

lint: .venv/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

# Side by side: most tests wait for processes that start.
test: .venv/.tested
	$(MAKE) --no-print-directory --jobs 2 lint fast-tests

# Two files at a time, for the same reason.
fast-tests: .venv/.tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/.tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow

bench: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement benchmarks/requirements.txt
	$(BIN)/python benchmarks/speed/step.py
	$(BIN)/python benchmarks/speed/pretext.py
	$(BIN)/python benchmarks/speed/pack_cost.py
	$(BIN)/python benchmarks/speed/loader.py

.venv/.documented: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

# The site, in build/site. The pages of commands, keys and modules are written anew from the code.
docs: .venv/.documented
	$(BIN)/python docs/scripts/write_reference.py
	$(BIN)/python docs/scripts/draw_house.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv build dist *.egg-info
