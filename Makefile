# Each target first creates the virtual environment .venv with the versions of requirements.lock, if needed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
ENVIRONMENT := .venv/installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: quick quickcheck test test-slurm check docs bench bench-analysis bench-sharing bench-gpu bench-verdicts fidelity faults paper verify environment lock clean

quick: $(ENVIRONMENT)  ## train the paper's whole grid at the quick scale, and make its report
	snakemake --quiet rules
	snakemake --quiet all --report reports/quick/report.html
	@echo "Tables, figures and the report are in reports/quick: open reports/quick/report.html"

test: $(ENVIRONMENT)  ## run all tests
	leaf fetch
	pytest

test-slurm: $(ENVIRONMENT)  ## test the SLURM profile on a real one-node SLURM cluster, with interruptions; needs root
	leaf fetch
	python tests/slurm.py

check: $(ENVIRONMENT)  ## check style and types, and lint the workflow
	ruff check
	ruff format --check
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

quickcheck: $(ENVIRONMENT)  ## check style and types, and run the fast tests, which train nothing
	ruff check
	ruff format --check
	mypy
	pytest -m "not slow and not data and not browser"

docs: $(ENVIRONMENT)  ## run the notebooks and build the documentation: docs/_build/html/index.html
	leaf fetch fashion_mnist
	rm -rf docs/generated
	mkdir -p docs/generated/shipped
	cp $(addprefix reports/shipped/,cells.csv epochs.csv forms.safetensors) docs/generated/shipped
	leaf analyse docs/generated/shipped
	python -m sphinx -q -W --keep-going docs docs/_build/html

fidelity: $(ENVIRONMENT)  ## compare whole epochs with a plain PyTorch loop and with the published implementation
	leaf fetch
	python benchmarks/fidelity.py

bench: $(ENVIRONMENT)  ## measure training time relative to a plain PyTorch loop and to fixed activations
	leaf fetch
	python benchmarks/bench.py reports/benchmark

bench-analysis: $(ENVIRONMENT)  ## measure the time to analyse the paper's whole grid, on synthetic records
	leaf fetch
	mkdir -p reports/benchmark
	python benchmarks/analysis.py reports/benchmark

bench-sharing: $(ENVIRONMENT)  ## measure the throughput of concurrent cells on this machine's cores or GPUs
	leaf fetch cifar10
	python benchmarks/sharing.py reports/benchmark

bench-verdicts: $(ENVIRONMENT)  ## simulate how often the rules for the paper's claims are wrong
	python benchmarks/verdicts.py reports/benchmark

bench-gpu:  ## measure what training costs on this machine's GPU; needs only torch with Triton
	PYTHONPATH=src python3 benchmarks/gpu.py reports/benchmark

faults: $(ENVIRONMENT)  ## interrupt training in every way and count the epochs lost
	leaf fetch
	python tests/faults.py

paper: $(ENVIRONMENT)  ## train the published experiment unchanged: 148 cells, days on a laptop
	snakemake --config scale=paper
	snakemake --quiet all --config scale=paper --report reports/paper/report.html

verify: $(ENVIRONMENT)  ## train the first epochs of a shipped cell again (CELL=name; default: a random one)
	leaf fetch
	leaf verify $(CELL)

environment: $(ENVIRONMENT)  ## create only the virtual environment

$(ENVIRONMENT): requirements.lock pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

lock:  ## pin the newest compatible versions; then update environment.yml
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --extra workflow --extra tracking --group dev \
	  --universal --python-version 3.11 --upgrade --generate-hashes --no-emit-index-url --no-annotate --output-file requirements.lock

clean:  ## remove results, reports and logs; keep the environment and the data sets
	rm -rf results logs tracking .snakemake $(filter-out reports/shipped,$(wildcard reports/*))
