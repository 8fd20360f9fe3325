# make demo: the whole pipeline on the embedded world. make help: everything else.
FITS = -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))'
PYTHON ?= $(or $(shell for each in python3 python3.12 python3.11; do $$each $(FITS) 2>/dev/null && echo $$each && break; done),python3)
CONFIG ?= config/demo.yaml
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export PYTHONPATH := $(CURDIR)/workflow$(if $(PYTHONPATH),:$(PYTHONPATH))
export PYTHONDONTWRITEBYTECODE ?= 1

.DEFAULT_GOAL := help
RUNTIMES ?= llama.cpp vllm
MACHINE ?= $(shell nproc) CPU cores
# Each test process computes in one thread: one a core, and one more, for a fifth of their time is waiting, for Snakemake, DVC and jobs.
# Many cores do not bring as much memory: at most eight.
WORKERS ?= $(shell expr 1 + $$(env -u OMP_NUM_THREADS nproc))
PARALLEL = --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal
.PHONY: help demo run experiment-file base dev versioning restore reference test test-unit test-slow test-gpu test-model test-runtimes test-slurm lint docs keys lock clean clean-results

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: CONFIG := config/demo.yaml
demo: run  ## make the environment, run the embedded demo, print its table

run: experiment-file base  ## the same for another experiment: make run CONFIG=config/<experiment>.yaml
	@tools/run "$(CONFIG)"
	@name=$$(python -m study name "$(CONFIG)") && python -m study summary --results "results/$$name"

# Before the environment, which takes minutes to make.
experiment-file:
	@test -f '$(CONFIG)' || { echo "CONFIG=$(CONFIG): no such file; give an experiment file: make run CONFIG=config/<experiment>.yaml" >&2; exit 1; }

versioning: base  ## DVC for the environment, see docs/dvc.md
	@python tools/environment.py versioning

restore: experiment-file versioning  ## fetch an experiment's results by dvc.lock, check them, and let Snakemake know them: make restore CONFIG=…
	@python -m study restore "$(CONFIG)"

reference: run  ## run an experiment and keep it under results/reference: make reference CONFIG=… MACHINE="what it ran on"
	@name=$$(python -m study name "$(CONFIG)") && python -m study reference --results "results/$$name" \
	  --out "results/reference/$$name" --machine "$(MACHINE)" --experiment "$(CONFIG)" $(if $(filter undefined,$(origin SHOW)),,--show "$(SHOW)")

test: dev  ## make the environment, run the tests, the smoke run of the whole pipeline among them
	@python -m compileall -q pat workflow/study  # which some hundred processes would compile each for itself
	@python -m pytest $(PARALLEL)

test-unit: dev  ## the short tests of the library's and the study's modules, about two minutes; `make test` stays the whole truth
	@python -m pytest $(PARALLEL) tests/pat tests/study -m "unit and not gpu and not network and not slow and not slurm and not model"

test-slow: dev  ## the tests that take minutes
	@python -m pytest -m slow

test-gpu: dev  ## the tests on a CUDA device; those of several processes need two
	@python -m pytest -m gpu -rs

test-model: dev  ## the tests on a pretrained model, the one of config/smollm2-local.yaml or another: make test-model PAT_REAL_MODEL=/path/to/model.gguf
	@PAT_REAL_MODEL="$(PAT_REAL_MODEL)" python -m pytest -m model -rs

test-runtimes: dev  ## merged models in llama.cpp and vLLM, which it installs into .runtimes/ (0.7 GB to fetch): make test-runtimes RUNTIMES=llama.cpp
	@python tools/runtimes/install.py $(RUNTIMES)
	@python -m pytest -m runtimes -rs --junit-xml=.runtimes/run.xml; status=$$?; python -m tools.runtimes_table .runtimes/run.xml && exit $$status

test-slurm: dev  ## the tests on a SLURM cluster that they start on this machine; needs root, slurm-wlm and munge
	@python tools/environment.py slurm
	@python -m pytest -m slurm -rs

lint: dev  ## ruff, mypy, the floors of imports, snakefmt
	ruff check .
	mypy --num-workers auto
	lint-imports
	snakefmt --check Snakefile workflow/rules

docs: $(VENV)/bin/python  ## the site of documents, into site/
	@python tools/environment.py base docs
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo "site/index.html"

keys: base  ## config/schema.json and the tables of keys in config/README.md, from the settings
	@python -m tools.keys

lock:  ## resolve constraints.txt anew; PYTHON311 and PYTHON312 name the interpreters
	$(or $(PYTHON311),python3.11) tools/lock.py $(or $(PYTHON311),python3.11) $(or $(PYTHON312),python3.12)

clean:  ## remove the environments and caches; results stay
	rm -rf $(VENV) .runtimes .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

clean-results:  ## remove what runs have made (not results/reference)
	find results -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} + 2>/dev/null || true
	rm -rf .snakemake

# The environment is made once, and again when the package's needs or the locked versions change.
$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not to be found; name a Python 3.11 or 3.12: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) $(FITS) \
	  || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but Python 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# By its contents: what is copied with its folder has other times, and is mended where it says in which folder it lies.
base: $(VENV)/bin/python
	@python tools/environment.py base

dev: $(VENV)/bin/python
	@python tools/environment.py dev
