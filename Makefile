# Two commands do everything: `make demo` and `make test`. Each sets up what it needs.
.DEFAULT_GOAL := help
.PHONY: help check setup demo demo-cluster materialize ui test test-cluster lint lint-python lint-rust test-rust check-targets docs hooks bench-dsp clean

VENV := .venv
PORT ?= 3000
PYTHON := $(VENV)/bin/python
UV := $(VENV)/bin/uv
UV_VERSION := 0.13.9
# It has a jobserver of its own, and warns of one that it cannot open
CARGO := env -u MAKEFLAGS -u MFLAGS cargo
# Where the installers of Rust and uv put them: found at once, without a new shell
export PATH := $(PATH):$(HOME)/.cargo/bin:$(HOME)/.local/bin
export ACCELKD_HOME ?= $(CURDIR)/.accelkd
export DAGSTER_HOME := $(ACCELKD_HOME)/dagster
RUST_SOURCES := $(shell find rust_dsp -name target -prune -o -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.lock' -o -name '*.py' -o -name '*.pyi' \) -print)

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

check:  ## say what this machine lacks, and how to get it; BASE_PYTHON=... names the Python to use
	@.ci/check

setup: $(VENV)/.ready $(DAGSTER_HOME)/dagster.yaml  ## make the environment: Python packages and the Rust extension

$(VENV)/bin/uv:
	@base=$$(.ci/check) || exit 1; case $$base in \
	uv) uv venv --quiet --allow-existing --python '>=3.11,<3.15' $(VENV) \
		&& uv pip install --quiet --python $(PYTHON) uv==$(UV_VERSION) ;; \
	*) "$$base" -m venv $(VENV) \
		&& $(PYTHON) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) ;; \
	esac

$(VENV)/.ready: $(VENV)/bin/uv pyproject.toml constraints.txt $(RUST_SOURCES)
	@.ci/check rust
	$(UV) pip install --quiet --compile-bytecode --python $(PYTHON) --constraints constraints.txt --reinstall-package rust_dsp \
		./rust_dsp --editable '.[platform,formats,dev,docs]'
	touch $@

# Ray, PostgreSQL, an S3 server: what neither the demo nor the UI needs
$(VENV)/.cluster: $(VENV)/.ready
	$(UV) pip install --quiet --compile-bytecode --python $(PYTHON) --constraints constraints.txt \
		--editable '.[platform,formats,dev,docs,cluster,services]'
	touch $@

$(DAGSTER_HOME)/dagster.yaml: dagster.yaml
	mkdir -p $(DAGSTER_HOME)
	sed "s/max_concurrent_runs: .*/max_concurrent_runs: $$(nproc)/" $< > $@

demo: setup  ## simulate a cohort, run the whole pipeline on it, publish DuckDB, print the results
	$(PYTHON) -m orchestration.demo

demo-cluster: setup $(VENV)/.cluster  ## the same demo on PostgreSQL, an S3 server and two Ray nodes of this machine
	$(PYTHON) -m tests.support.demo_cluster

materialize: setup  ## materialize everything in the home that is missing or stale
	$(PYTHON) -m orchestration.catch_up

ui: setup  ## open the Dagster UI on the same home: http://127.0.0.1:3000, or another PORT=...
	@$(PYTHON) -m orchestration.ui --port $(PORT) --end-with-parent

# The compilers of Rust and the type checker side by side; then one process more than cores: some tests wait for a daemon
test: setup $(VENV)/.cluster  ## all tests and linters, and the documentation
	@$(MAKE) --no-print-directory --jobs 2 lint-python docs test-rust
	TMPDIR="$$(.ci/scratch)" $(PYTHON) -m pytest --numprocesses $$(($$(nproc) + 1)) --dist loadfile --no-loadscope-reorder \
		--ignore tests/cluster

test-cluster: setup $(VENV)/.cluster  ## the tests on local Ray clusters, one after the other: each wants the whole machine
	TMPDIR="$$(.ci/scratch)" $(PYTHON) -m pytest tests/cluster

lint: lint-python lint-rust  ## formatters, linters and type checkers alone

lint-python: setup $(VENV)/.cluster  ## those of Python
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PYTHON) -m mypy.stubtest rust_dsp

lint-rust: setup  ## those of Rust
	@for workspace in rust_dsp rust_dsp/c; do \
		$(CARGO) fmt --all --check --manifest-path $$workspace/Cargo.toml && $(CARGO) clippy --quiet \
			--manifest-path $$workspace/Cargo.toml --all-targets --all-features -- -D warnings || exit 1; \
	done

test-rust: lint-rust check-targets  ## the tests of the signal processing that are in Rust
	$(CARGO) test --quiet --manifest-path rust_dsp/Cargo.toml
	$(CARGO) test --quiet --manifest-path rust_dsp/c/Cargo.toml

check-targets:  ## compile the part for phones and watches without threads, here and for each installed target of them
	@for target in "" $$(rustup target list --installed 2>/dev/null | grep -E 'android|ios|watchos|aarch64'); do \
		$(CARGO) check --quiet --manifest-path rust_dsp/c/Cargo.toml $${target:+--target $$target} || exit 1; \
	done

docs: setup  ## build the documentation into site/; a warning fails
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict  # --quiet would hide the warnings from --strict

hooks: setup  ## check every commit with the formatters, linters and the type checker
	$(VENV)/bin/pre-commit install

bench-dsp: setup  ## time the signal processing against SciPy and NeuroKit2
	$(UV) pip install --quiet --compile-bytecode --python $(PYTHON) --constraints constraints.txt --editable '.[bench]'
	$(PYTHON) benches/dsp.py
	cargo bench --quiet --manifest-path rust_dsp/Cargo.toml --package rust_dsp_core --features stages --bench stages

clean:  ## remove the home with all its data, the environment and the built documentation
	rm -rf $(ACCELKD_HOME) $(VENV) site
