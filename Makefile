# Every target that needs Python sets up .venv first; a second call finds it ready.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)

# Two pytest workers with one thread each: more threads would only fight over the cores.
PYTEST_WORKERS ?= 2
ONE_THREAD := OMP_NUM_THREADS=1

# pip is the default. uv is faster, but does not read pip's configuration, so it serves
# only where it has been told itself where to look for packages.
UV := $(if $(UV_FIND_LINKS),$(shell command -v uv))
INSTALL := $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/python -m pip install)

ifndef SCISEQ_DATA
ifneq ($(wildcard ../shared/data),)
export SCISEQ_DATA := $(abspath ../shared/data)
endif
endif
# Pictures go to files; no test, demo or page opens a window.
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow coverage lint format types names docs notebooks \
    bench bench-gpu wheel clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP)  ## Create .venv with the pinned versions (2 to 5 minutes, once)

# torch comes first: the pin, and wherever pip finds it, decide between the builds for
# CPU and GPU before anything else can ask for another one. sciseq itself is built with
# the pinned setuptools, not with the newest one that an isolated build would fetch.
KERNEL := $(wildcard sciseq/ops/selective_scan/kernel/*)
$(STAMP): pyproject.toml constraints.txt setup.py $(KERNEL)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "sciseq needs Python 3.11 or newer; '$(PYTHON)' is not it." \
	    "Try: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -c constraints.txt $(TORCH) setuptools
	$(INSTALL) -c constraints.txt --no-build-isolation -e '.[dev,docs,notebooks]'
	@touch $@

demo: $(STAMP)  ## Forecast real series beside naive baselines; read peptides
	$(ONE_THREAD) $(BIN)/python -m sciseq.demo

test: $(STAMP)  ## Run the tests (not those marked slow or gpu)
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(PYTEST_WORKERS)

slow: $(STAMP)  ## Run the tests marked slow, the check of the wheel among them
	$(ONE_THREAD) $(BIN)/python -m pytest -m 'slow and not gpu'

coverage: $(STAMP)  ## Run the tests and report the lines that none of them reaches
	$(ONE_THREAD) $(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage report

lint: $(STAMP)  ## Check style, format and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(STAMP)  ## Mend style and format where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## Check the types
	$(BIN)/mypy

names: $(STAMP)  ## Write sciseq/__init__.pyi from the registry
	$(BIN)/python -c 'from sciseq.registry import stub; print(stub(), end="")' \
	  > sciseq/.names && mv sciseq/.names sciseq/__init__.pyi

docs: $(STAMP)  ## Build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

NOTEBOOKS := $(wildcard notebooks/*.ipynb notebooks/*/*.ipynb)
notebooks: $(STAMP)  ## Run the notebooks from top to bottom
	$(if $(NOTEBOOKS),$(ONE_THREAD) $(BIN)/python -m pytest --nbmake \
	  --nbmake-timeout=600 $(NOTEBOOKS),@echo "There are no notebooks yet.")

bench: $(STAMP)  ## Compare with other packages (long)
	$(BIN)/python benchmarks/arnet.py
	$(BIN)/python benchmarks/panel.py
	$(BIN)/python benchmarks/intervals.py
	$(BIN)/python benchmarks/scan.py
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/full_fit.py
	$(BIN)/python benchmarks/forecasting.py
	$(BIN)/python benchmarks/simulator.py
	$(BIN)/python benchmarks/peptides.py
	$(BIN)/python benchmarks/pretrained_peptides.py
	$(BIN)/python benchmarks/peptide_training_size.py
	$(BIN)/python benchmarks/peptide_errors.py
	$(BIN)/python benchmarks/peptide_fine_tuning.py
	$(BIN)/python benchmarks/peptide_fdr.py
	$(BIN)/python benchmarks/peptide_scale.py
	$(BIN)/python benchmarks/peptide_peers.py
	$(BIN)/python benchmarks/recall.py
	$(BIN)/python benchmarks/summaries.py
	$(BIN)/python benchmarks/adapters.py
	$(BIN)/python benchmarks/structured_attention.py
	$(BIN)/python benchmarks/long_sampling.py
	$(BIN)/python benchmarks/generation_peers.py
	$(BIN)/python benchmarks/sampling_profile.py
	$(BIN)/python benchmarks/sequences.py
	$(BIN)/python benchmarks/sequence_steps.py
	$(BIN)/python benchmarks/sequence_claims.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/ranking.py
	$(BIN)/python benchmarks/probabilistic.py
	$(BIN)/python benchmarks/jobs.py

bench-gpu: $(STAMP)  ## Compare the scans on a CUDA GPU, where there is one
	$(BIN)/python benchmarks/scan_gpu.py --sweep

wheel: $(STAMP)  ## Build the source distribution and the wheel into dist/
	$(BIN)/python -m build --no-isolation

clean:  ## Remove what was built, but not .venv
	rm -rf build dist *.egg-info docs/_build docs/generated demo-output \
	  .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
