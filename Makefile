# make demo: train, look at, evaluate and report a small model on real digits.    make test: everything that is checked.
# Both make their own virtual environment; all they need is Python 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

DEMO := runs/demo

.PHONY: demo test lint types unit results benchmark clean

demo: $(READY)
	$(BIN)/vaepriors train --out $(DEMO) --resume --data digits --model hvae --prior vamp --components 200 \
		--latent 16 --epochs 100 --warmup 40
	$(BIN)/vaepriors sample $(DEMO)
	$(BIN)/vaepriors evaluate $(DEMO) --samples 5000
	$(BIN)/vaepriors report $(DEMO)

test: lint types unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/python -m pytest

# the result tables of README.md and docs/results.md, from results/
results: $(READY)
	$(BIN)/vaepriors reproduce show --write README.md docs/results.md

# beside pythae, which has an environment of its own
benchmark: $(READY) .venv-peers/ready
	$(BIN)/python benchmarks/speed.py --peer .venv-peers/bin/python --out results/benchmarks/speed-cpu.json
	$(BIN)/python benchmarks/speed.py --render

.venv-peers/ready: constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch pythae==0.1.2
	@touch $@

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vaepriors needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

clean:
	rm -rf .venv .venv-peers .mypy_cache .pytest_cache .ruff_cache
