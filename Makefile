# `make play` and `make test` set everything up in .venv first; it needs Python 3.11 or later.
# ARGS goes to the program or to pytest: make play ARGS="--help", make test ARGS="-k cache".

PYTHON ?= python3
ARGS ?=
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: play test

play: $(VENV)/.play
	$(VENV)/bin/python main.py play $(ARGS)

test: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest $(ARGS)

# The stamps are older than what they were made from as soon as a requirement changes.
$(VENV)/.play: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Setting up $(VENV) (a few minutes, once)"
	$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.play
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Playhead needs Python 3.11 or later: name one with make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
