# make demo | test | test-all | lint | setup-all | clean          (each does its own set-up; PYTHON=/path/to/python chooses the stack)
PYTHON ?= python3
PYTHON37 ?= $(shell for p in python3.7 "$$(pyenv prefix 3.7 2>/dev/null)/bin/python3" "$$(pyenv prefix 3.7.16 2>/dev/null)/bin/python3"; do "$$p" -c '' 2>/dev/null && { echo $$p; break; }; done)
STACK := $(shell "$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; print("tf1" if v == (3, 7) else "tf2" if (3, 10) <= v <= (3, 13) else "none")' 2>/dev/null || echo none)
VENV := .venv-$(STACK)
READY := $(VENV)/.ready
TESTS ?= tests
JOBS ?= 2

.PHONY: setup setup-all setup-tf1 demo test test-all lint clean

setup: $(READY)

$(READY): requirements.txt requirements-dev.txt
	@test $(STACK) != none || { echo "error: $(PYTHON) ($$("$(PYTHON)" --version 2>&1 | head -n 1)) is not supported; accepted: Python 3.7 (TensorFlow 1.15) or 3.10 to 3.13 (TensorFlow 2): make PYTHON=/path/to/python"; exit 1; }
	@echo "Setting up $(VENV) with $$("$(PYTHON)" --version) (takes a few minutes, once)"
	@"$(PYTHON)" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@if [ $(STACK) = tf2 ] && nvidia-smi -L >/dev/null 2>&1; then \
		if [ "$$(uname -m)" != x86_64 ]; then echo "NVIDIA GPU found, but PyPI's TensorFlow for $$(uname -m) has no CUDA: see docs/cuda.md"; else \
			echo "NVIDIA GPU found: installing the CUDA libraries"; \
			$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check "tensorflow[and-cuda]"; fi; fi
	@touch $(READY)

setup-all:
	@$(MAKE) --no-print-directory --jobs=2 setup setup-tf1

setup-tf1:
	@test -n "$(PYTHON37)" || { echo "error: no Python 3.7 found; make $(MAKECMDGOALS) PYTHON37=/path/to/python3.7"; exit 1; }
	@$(MAKE) --no-print-directory setup PYTHON="$(PYTHON37)"

demo: $(READY)
	@$(VENV)/bin/python -m examples.demo

test: $(READY)
	@$(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal $(TESTS)

test-all:
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory setup-tf1
	@$(MAKE) --no-print-directory test PYTHON="$(PYTHON37)"

lint: $(READY)
	@$(VENV)/bin/python -m ruff check .

clean:
	rm -rf .venv-tf1 .venv-tf2 .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
