# One command each; `make` alone lists them. Everything runs from .venv, which `setup` builds and keeps up to date.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
DEMO_ARGS ?=
GATE_ARGS ?=
DEMO_DECODERS := vae,diffusion,ms-diffusion,ms-diffusion-cascade,onestep,ms-onestep,direct,bicubic,jpeg,identity

BIN := $(VENV)/bin
STAMP := $(VENV)/.msbench-setup
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo results gate test test-slow test-iqa docs lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv and install msbench with its development tools (again only when pyproject.toml changed)

# Plain pip: whatever index, mirror or constraint this machine configures is what counts.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "msbench needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make setup PYTHON=python3.12")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@

# Six seconds for the cost of a decoder: times of 50 steps that do not fit are estimated from fewer, and marked.
demo: setup ## fetch the metric weights, run every decoder on the built-in photographs, show the table
	$(BIN)/msbench weights fetch
	$(BIN)/msbench run --decoder $(DEMO_DECODERS) --dataset photos --decoder-seconds 6 $(DEMO_ARGS)

# A fresh folder each time: a run's folder is never overwritten.
results: setup ## measure again what results/ holds for a CPU: the demo table, and the sweep over scales and steps
	$(eval RUN := results/runs/photos-cpu-$(shell date +%Y%m%d-%H%M%S))
	$(BIN)/msbench run --decoder $(DEMO_DECODERS) --dataset photos --output-dir $(RUN)
	$(BIN)/msbench compare $(RUN) --format csv > results/photos-cpu.csv
	$(BIN)/msbench compare $(RUN) --format markdown > results/photos-cpu.md
	$(BIN)/msbench sweep --cost-seconds 5 --output-dir $(RUN)-sweep
	cp $(RUN)-sweep/sweep.csv results/sweep-cpu.csv
	for kind in svg png; do \
		cp $(RUN)-sweep/speedup-ms-diffusion-cascade.$$kind results/sweep-cpu-speedup.$$kind && \
		cp $(RUN)-sweep/flops-time.$$kind results/sweep-cpu-flops-time.$$kind && \
		cp $(RUN)-sweep/lpips-time.$$kind results/sweep-cpu-lpips-time.$$kind || exit 1; \
	done

# GATE_ARGS=--update rewrites the reference: on purpose, in the commit that moves the figures.
gate: setup ## hold every shipped decoder against results/regression/photos-cpu.json; fails where one got worse
	$(eval RUN := results/runs/gate-$(shell date +%Y%m%d-%H%M%S))
	$(BIN)/msbench weights fetch
	MSBENCH_FEATURES=off $(BIN)/msbench run --decoder $(DEMO_DECODERS) --dataset photos --cost-batch-sizes none --output-dir $(RUN)
	$(BIN)/msbench compare $(RUN) --against photos-cpu --fail-on-regression $(GATE_ARGS)

test: lint ## lint, then every test that takes seconds
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

# pytest exits 5 where nothing is marked slow: that is no failure.
test-slow: setup ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS) || [ $$? -eq 5 ]

# A copy of every committed page and picture: the links are those of the repository, and each is checked.
docs: setup ## build the documentation site in build/site, and check its links
	$(BIN)/python -m pip install -q -e '.[docs]'
	rm -rf build/docs build/site && mkdir -p build/docs
	git ls-files '*.md' docs results decoders/checkpoints LICENSE | grep -v safetensors | xargs cp --parents -t build/docs
	$(BIN)/mkdocs build --strict

# pyiqa brings transformers and much more, under a noncommercial licence: an environment of its own, and no part of .ci/run.
test-iqa: ## the tests of pyiqa's metrics, in .venv-iqa (downloads gigabytes once)
	test -x .venv-iqa/bin/pip || $(PYTHON) -m venv .venv-iqa
	.venv-iqa/bin/python -m pip install -e '.[iqa]' pytest
	.venv-iqa/bin/python -m pytest -m iqa tests/harness/metrics/test_pyiqa.py $(PYTEST_ARGS)

lint: setup ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches and build outputs; .venv, runs and downloaded weights stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
