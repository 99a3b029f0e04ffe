# make install   a virtual environment in .venv with the package and its test tools
# make demo      search on real images, then retrain what it found; FRESH=1 repeats a finished demo
# make test      formatter, linter, types and tests; SLOW=1 adds the tests that take minutes
# make matrix    the tests on Python 3.10 and 3.13, with the oldest and the newest torch; PYTHON310= and PYTHON313=
#                name interpreters that are not on PATH; ONLY="python3.10-oldest" makes some of the four alone

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OVERWRITE := $(if $(FRESH),run.overwrite=true)

.PHONY: install demo test matrix

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

demo: install
	$(BIN)/python train_search.py --config configs/search/digits.yaml $(OVERWRITE)
	$(BIN)/python train_eval.py --config configs/eval/digits.yaml network.genotype=runs/search/digits $(OVERWRITE)

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(if $(SLOW),-m "slow or not slow")

matrix:
	PYTHON310="$(PYTHON310)" PYTHON313="$(PYTHON313)" .ci/matrix $(ONLY)
