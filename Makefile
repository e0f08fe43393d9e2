# Each target does its own set-up: a virtual environment in .venv with the versions of requirements.lock.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
ENVIRONMENT := .venv/installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: quick quickcheck test test-slurm check docs bench bench-analysis bench-sharing fidelity faults paper verify environment lock clean

quick: $(ENVIRONMENT)  ## the paper's whole grid at a size for a laptop, with its report
	snakemake --quiet rules
	snakemake --quiet all --report reports/quick/report.html
	@echo "Tables, figures and the report are in reports/quick: open reports/quick/report.html"

test: $(ENVIRONMENT)  ## the tests
	leaf fetch
	pytest

test-slurm: $(ENVIRONMENT)  ## the SLURM profile on a real SLURM of one node, with interruptions; as root
	leaf fetch
	python tests/slurm.py

check: $(ENVIRONMENT)  ## style, types and the workflow's own checks
	ruff check
	ruff format --check
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

quickcheck: $(ENVIRONMENT)  ## style, types and the fast tests, which train nothing
	ruff check
	ruff format --check
	mypy
	pytest -m "not slow and not data and not browser"

docs: $(ENVIRONMENT)  ## the documentation as a site, its notebooks run: docs/_build/html/index.html
	leaf fetch fashion_mnist
	rm -rf docs/generated
	mkdir -p docs/generated/shipped
	cp $(addprefix reports/shipped/,cells.csv epochs.csv forms.safetensors) docs/generated/shipped
	leaf analyse docs/generated/shipped
	python -m sphinx -q -W --keep-going docs docs/_build/html

fidelity: $(ENVIRONMENT)  ## whole epochs against a plain loop and the published implementation's own
	leaf fetch
	python benchmarks/fidelity.py

bench: $(ENVIRONMENT)  ## what training costs, against a plain loop and against plain activations
	leaf fetch
	python benchmarks/bench.py reports/benchmark

bench-analysis: $(ENVIRONMENT)  ## what tables, figures and claims of the paper's whole grid cost, on made-up records
	leaf fetch
	mkdir -p reports/benchmark
	python benchmarks/analysis.py reports/benchmark

bench-sharing: $(ENVIRONMENT)  ## how many cells should train at a time on this machine's cores or GPUs
	leaf fetch cifar10
	python benchmarks/sharing.py reports/benchmark

faults: $(ENVIRONMENT)  ## interrupts training in every way and counts what is lost
	leaf fetch
	python tests/faults.py

paper: $(ENVIRONMENT)  ## the published experiment, unchanged: 148 cells, days on a laptop
	snakemake --config scale=paper
	snakemake --quiet all --config scale=paper --report reports/paper/report.html

verify: $(ENVIRONMENT)  ## trains the first epochs of a shipped cell again (CELL=name, or one drawn at random)
	leaf fetch
	leaf verify $(CELL)

environment: $(ENVIRONMENT)  ## the virtual environment alone

$(ENVIRONMENT): requirements.lock pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

lock:  ## pin the newest versions that fit together; then bring environment.yml up to date
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --extra workflow --extra tracking --group dev \
	  --universal --python-version 3.11 --upgrade --generate-hashes --no-emit-index-url --no-annotate --output-file requirements.lock

clean:  ## remove what was trained and made; keeps the environment and the data sets
	rm -rf results logs tracking .snakemake $(filter-out reports/shipped,$(wildcard reports/*))
