# make lab    open the tour in JupyterLab        make test   the whole check, as in CI
# make lint   style only                         make gpu    every experiment at full scale on a CUDA machine
# make bench  ours against peers, on the GPU if there is one; writes tests/benchmarks/results
#
# VENV=path uses another environment, PYTHON=path another interpreter, ARGS="..." goes to the command of the target.

VENV ?= .venv
# The first interpreter that is new enough; macOS and older systems often have a python3 that is not.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
ARGS ?=
RUN := "$(VENV)/bin/python"
# On a terminal pip shows what it downloads; a log keeps only what goes wrong.
QUIET := $(shell [ -t 2 ] || echo --quiet)
TOUR := chapters/00_start/tour.ipynb
# A container's only user is often root, and Jupyter refuses root unless told. The server stays on 127.0.0.1.
ROOT_FLAG := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: lab test lint gpu bench

lab: $(VENV)/.course-installed
	$(RUN) -m jupyterlab --ServerApp.ip=127.0.0.1 --LabApp.default_url=/lab/tree/$(TOUR) $(ROOT_FLAG) $(ARGS)

# One thread each in two workers: two cores are kept busy and results do not depend on how sums are split.
# Triton kernels run in its interpreter here; `make gpu` runs the tests that need a device.
test: export OMP_NUM_THREADS = 1
test: export TRITON_INTERPRET = 1
test: lint
	$(RUN) -m pytest -n 2 --dist worksteal -rs --cov --cov-report=term:skip-covered $(ARGS)

lint: $(VENV)/.test-installed
	$(RUN) -m ruff check .

# GPU machines often have their own torch, no network and no Jupyter: nothing is installed here.
# Goes on after a failure and fails at the end: an hour of GPU time should not end with its first notebook.
gpu: export SSLCORE_SCALE = gpu
gpu: export PYTHONPATH = $(CURDIR)
gpu:
	@run="$(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,$(PYTHON))"; failed=; \
	"$$run" -m pytest -m gpu $(ARGS) || failed=" tests"; \
	for task in checkpoints claims; do \
		"$$run" chapters/checkpoints/train.py $$task --scale gpu || failed="$$failed $$task"; \
	done; \
	"$$run" chapters/04_masked/family_runs.py --scale gpu || failed="$$failed family"; \
	for notebook in chapters/[0-9]*/*.ipynb; do \
		echo "== $$notebook"; "$$run" -m sslcore.nb run "$$notebook" --scale gpu || failed="$$failed $$notebook"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

# Installs nothing either: peers that are not there have no column.
bench: export PYTHONPATH = $(CURDIR)
bench:
	@"$(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,$(PYTHON))" -m tests.benchmarks $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; \
	sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, found {v}; try: make lab PYTHON=python3.12")'
	@if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then $(PYTHON) -m venv "$(VENV)"; \
	elif $(PYTHON) -c 'import virtualenv' 2>/dev/null; then $(PYTHON) -m virtualenv "$(VENV)"; \
	else echo "Cannot make a virtual environment: this Python lacks ensurepip. On Debian and Ubuntu:" \
	"apt install python3-venv. Anywhere: $(PYTHON) -m pip install virtualenv. Then run make again."; exit 1; fi

# Installed again only when pyproject.toml changes; the package itself is editable.
$(VENV)/.course-installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV). The first time this fetches PyTorch: minutes, and up to 6 GB on disk."
	$(RUN) -m pip install $(QUIET) --editable '.[course]'
	@touch "$@"

$(VENV)/.test-installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing what the checks need into $(VENV)."
	$(RUN) -m pip install $(QUIET) --editable '.[test]'
	@touch "$@" "$(VENV)/.course-installed"
