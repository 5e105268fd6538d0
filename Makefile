# make demo: train, look at, evaluate and report a small model on real digits.    make test: everything that is checked.
# Both make their own virtual environment; all they need is Python 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

DEMO := runs/demo

.PHONY: demo test docs lint types unit lowest fuzz kills results mistakes benchmark gpu gpu-tests clean

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

# the tests with the oldest versions that pyproject.toml admits; for Linux, that torch comes with gigabytes of CUDA
lowest: .venv-lowest/ready
	.venv-lowest/bin/python -m pytest -W default

# the reference of the library, with formulas: dist/api/index.html
docs: $(READY)
	$(BIN)/python -m pdoc --docformat google --math --output-directory dist/api \
		vaepriors vaepriors.checking vaepriors.estimator vaepriors.imputation

# thousands of odd inputs; every failure with a command that shows it
EXAMPLES ?= 2000
fuzz: $(READY)
	$(BIN)/python tests/fuzzing.py --examples $(EXAMPLES)

# runs of every kind, killed at random moments and resumed
KILLS ?= 100
kills: $(READY)
	$(BIN)/python tests/kills.py --kills $(KILLS)

# the result tables of README.md and docs/results.md, from results/; the priors of README.md and the models of the guide,
# from the code
results: $(READY)
	$(BIN)/python -c 'from pathlib import Path; from vaepriors.app.experiment import MODELS, PRIORS; \
		from vaepriors.app.choices import render; \
		[Path(page).write_text(render(Path(page).read_text(), [table])) \
		for page, table in (("README.md", PRIORS), ("docs/guide.md", MODELS))]'
	$(BIN)/vaepriors reproduce show --write README.md docs/results.md

# the mistakes that check catches: their record, and the outputs in docs/check.md
mistakes: $(READY)
	$(BIN)/python benchmarks/mistakes.py --out results/benchmarks/mistakes.json
	$(BIN)/python benchmarks/mistakes.py --render

# beside pythae, which has its own environment; SPEED names the table of docs/speed.md
SPEED ?= speed-cpu
benchmark: $(READY) .venv-peers/ready
	$(BIN)/python benchmarks/speed.py --peer .venv-peers/bin/python --out results/benchmarks/$(SPEED).json
	$(BIN)/python benchmarks/speed.py --render

# On a machine with a CUDA device: its tests, the benchmark, then rows of the papers, GPU_BUDGET each. The same command
# resumes; make -k gpu continues after a row that fails. GPU_PYTHON may be any Python that has vaepriors and pytest.
GPU_PYTHON ?= $(BIN)/python
GPU_BUDGET ?= 10m
GPU_OPTIONS ?=
GPU_SPEED := results/benchmarks/speed-cuda.json
GPU_ROWS := \
	$(foreach model,vae hvae convhvae pixelhvae,\
	$(foreach data,static_mnist dynamic_mnist,\
	$(foreach prior,standard vamp,vampprior-1/$(data)-$(model)-$(prior)))) \
	$(foreach method,rewo vamp iwae,vhp-2/dynamic_mnist-$(method))
GPU_READY := $(if $(filter $(BIN)/%,$(GPU_PYTHON)),$(READY))

.PHONY: $(GPU_ROWS:%=gpu/%)
gpu: gpu-tests $(GPU_SPEED) $(GPU_ROWS:%=gpu/%)

gpu-tests: $(GPU_READY)
	@$(GPU_PYTHON) -c 'import torch; raise SystemExit(0 if torch.cuda.is_available() else "make gpu needs a CUDA device, \
	but torch " + torch.__version__ + " sees none: run it on a machine with one, with a torch built for CUDA")'
	$(GPU_PYTHON) -m pytest tests -k cuda

$(GPU_SPEED): | gpu-tests
	$(GPU_PYTHON) benchmarks/speed.py --rounds 3 --out $@
	$(GPU_PYTHON) benchmarks/speed.py --render

$(GPU_ROWS:%=gpu/%): gpu/%: | $(GPU_SPEED)
	$(GPU_PYTHON) -m vaepriors reproduce run $(*D) --row $(*F) --accelerator cuda --budget $(GPU_BUDGET) $(GPU_OPTIONS)

.venv-lowest/ready: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print(*project["dependencies"], *project["optional-dependencies"]["dev"], sep="\n")' | sed 's/>=/==/' > $(@D)/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c $(@D)/constraints.txt -e '.[dev]'
	@touch $@

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
	rm -rf .venv .venv-lowest .venv-peers .mypy_cache .pytest_cache .ruff_cache
