# Every command of the project, from a bare clone. `make serve` and `make test` make
# the virtual environment themselves; PYTHON chooses the interpreter that it is made with.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help serve test clients gpu-check check format sanitize tiles bench clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml setup.py $(wildcard csrc/*/*.h csrc/*/*.cpp csrc/isa/*/*.h)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps xgrammar apache-tvm-ffi  # it asks for Triton, which no CPU needs
	@touch $@

serve: $(STAMP)  ## serve MODEL=<folder>, or the demo model, on port 8000; more flags in ARGS
	$(BIN)/quire serve $(if $(MODEL),"$(MODEL)") $(ARGS)

test: $(STAMP)  ## every test that this machine can run
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

CLIENTS ?= .venv-clients
clients: $(STAMP)  ## the tests with LangChain, LlamaIndex, LiteLLM and lm-eval, which get an environment of their own
	@test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet -r tests/clients/requirements.txt
	$(CLIENTS)/bin/python -m pip install --quiet 'mcp>=2'  # litellm imports it, unasked; pip finds no way to all at once
	CLIENTS_PYTHON=$(CLIENTS)/bin/python $(BIN)/python -m pytest tests/clients/test_pages.py $(ARGS)

gpu-check: $(STAMP)  ## the tests that need an NVIDIA GPU; skipped with a reason without one
	$(BIN)/python -m pytest -m gpu $(ARGS)

check: $(STAMP)  ## format, lint, types, import contracts, sizes, documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py
	$(BIN)/python tools/check_docs.py
	$(BIN)/python tools/check_ops.py
	$(BIN)/python tools/write_models_page.py --check
	$(BIN)/python tools/repetition.py

format: $(STAMP)  ## rewrite files to the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

SANITIZED := build/sanitized
sanitize: $(STAMP)  ## the kernels' tests with address and undefined-behaviour checks compiled in
	QUIRE_SANITIZE=address,undefined $(BIN)/python setup.py --quiet build_ext --build-lib $(SANITIZED)
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	QUIRE_CPU_KERNELS=$(SANITIZED)/quire/ops/cpu/_lib \
	$(BIN)/python -m pytest tests/ops -q -k "cpu or native" $(ARGS)

EMULATED := build/emulated
tiles: $(STAMP)  ## the kernels for AMX on any processor with AVX-512: its tiles in memory, against the formulas
	QUIRE_EMULATE=1 $(BIN)/python setup.py --quiet build_ext --build-lib $(EMULATED)
	QUIRE_CPU_KERNELS=$(CURDIR)/$(EMULATED)/quire/ops/cpu/_lib $(BIN)/python -m pytest -n 2 tests/ops -q -k "amx_emulated" $(ARGS)
	QUIRE_CPU_KERNELS=$(CURDIR)/$(EMULATED)/quire/ops/cpu/_lib \
	$(BIN)/python -m benchmarks.determinism --isa amx_emulated --quick --models kv2 window --formats bfloat16 int8 int4

bench: $(STAMP)  ## the figures of docs/performance.md
	$(BIN)/python -m benchmarks.scheduler

clean:  ## remove what checks and builds leave behind; the environment stays
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find quire tests tools benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
