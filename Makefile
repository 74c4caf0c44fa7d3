# `make play`, `make web` and `make test` set everything up in .venv first; it needs Python 3.11 or later.
# ARGS goes to the program or to pytest: make play ARGS="--help", make test ARGS="-k cache".
# Tests run in two processes side by side, about 1 GB each; make test WORKERS=4 has more, WORKERS=0 none.
# `make mutants` breaks the modules that carry the laws (docs/mutants.md); ARGS names some: make mutants ARGS=schema.

PYTHON ?= python3
ARGS ?=
CHILDREN ?= 1
WORKERS ?= 2
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

# The modules that carry the laws; the tests about one are in test_NAME, or in those named here (pytest -k).
LAWS := schema tree session kv_cache sampler noise held clock lease protocol auth rope rest
TESTS_session := test_session or test_together
TESTS_kv_cache := test_kv_cache or test_far_memory

.PHONY: play web test mutants

play: $(VENV)/.play
	$(VENV)/bin/python main.py play $(ARGS)

web: $(VENV)/.play
	$(VENV)/bin/python main.py web $(ARGS)

test: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check --quiet .
	mkdir -p $(VENV)/types && ln -sfn ../.. $(VENV)/types/playhead
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

mutants: $(VENV)/.mutants
	mkdir -p mutants
	find mutants -mindepth 1 -maxdepth 1 ! -name mutants -exec rm -rf {} +
	cp -Rp $(filter-out build dist mutants data runs,$(wildcard *)) mutants
	cd mutants && mkdir playhead && cp main.py playhead && \
		mv controls engine render scenes world __init__.py __main__.py py.typed playhead
	$(foreach module,$(or $(ARGS),$(LAWS)),$(call break,$(module)))

# mutmut knows a module by its path alone, so the rooms of its copy lie where a wheel has them.
# Which tests reach a function is found anew for each module, since they are other tests.
define break
	rm -f mutants/mutants/mutmut-stats.json
	cd mutants && OMP_NUM_THREADS=1 PYTEST_ADDOPTS="-k '$(or $(TESTS_$(1)),test_$(1))'" \
		../$(VENV)/bin/mutmut run --max-children $(CHILDREN) '*.$(1).*'

endef

# The stamps are older than what they were made from as soon as a requirement changes.
$(VENV)/.play: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Setting up $(VENV) (a few minutes, once)"
	$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.play
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/.mutants: $(VENV)/.test
	$(PIP) --constraint constraints.txt --editable '.[mutants]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Playhead needs Python 3.11 or later: name one with make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
