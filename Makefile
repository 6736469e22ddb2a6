# Two commands: `make demo` and `make test`. Both set everything up in .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PLAIN  := $(VENV)/.plain
READY  := $(VENV)/.ready
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
PROCESSES = $(shell $(BIN)/python -c "import os; print(min(os.cpu_count(), 8) + 1)")

export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: demo test test-slow gpu lint types contracts written check schema audit clean help

help:
	@echo "make demo       simulated patients -> trained generator -> scored synthetic set, with a report"
	@echo "make test       the tests (real_data tests run when MEDPHANTOM_REAL_DATA is set)"
	@echo "make test-slow  trials of many minutes; with TENTH=0 ... 9 a tenth of them"
	@echo "make gpu        all that needs a CUDA device, in parts of at most nine minutes"
	@echo "make check      lint, types, import contracts and the committed schema"
	@echo "make audit      known vulnerabilities of the versions in constraints.txt and of what is installed"

# what the main job needs; PIP_ARGS can name an index of builds of torch for processors only
$(PLAIN): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (about 2.1 GB, some minutes the first time) ..."
	@$(PIP) -e .
	@touch $(PLAIN)

$(READY): $(PLAIN)
	@echo "Installing what the tests need into $(VENV) (about 0.8 GB more) ..."
	@$(PIP) -e '.[dev]'
	@# apart from the rest, for the tests of imported checkpoints: it asks for torchvision, and brings a package "tests"
	@$(PIP) --no-deps --upgrade \
		--target $(VENV)/peers monai-generative
	@touch $(READY)

demo: $(PLAIN)
	@$(BIN)/medphantom demo --out runs/demo

# where byte code is not kept, every process of the tests compiles all sources anew
unexport PYTHONDONTWRITEBYTECODE

test: $(READY)
	@test -n "$(MEDPHANTOM_REAL_DATA)" || echo "MEDPHANTOM_REAL_DATA is not set: tests on real images are skipped"
	@# a process more than cores, since some tests wait for servers; each with one thread, and with whole files
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# TENTH=0 ... 9: only every tenth of them
test-slow: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n $(PROCESSES) $(if $(TENTH),--tenth $(TENTH)) $(PYTEST_ARGS)

# on a machine with CUDA; parts that were done are not done again
gpu: $(READY)
	@$(BIN)/python -m benchmarks.gpu --out runs/gpu

lint: $(READY)
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/ruff format --no-cache --check .

types: $(READY)
	@$(BIN)/mypy

contracts: $(READY)
	@$(BIN)/lint-imports

written: $(READY)
	@$(BIN)/medphantom schema | cmp --silent - docs/formats/recipe.schema.json \
		|| { echo "docs/formats/recipe.schema.json is not what the recipes say: run make schema"; exit 1; }

check: lint types contracts written

schema: $(READY)
	@$(BIN)/medphantom schema > docs/formats/recipe.schema.json

# in an environment of its own; --strict: a version that the service does not know fails instead of passing unseen
audit: $(READY)
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit \
		&& $(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit; }
	@$(VENV)/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt
	@$(VENV)/audit/bin/pip-audit --strict --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

clean:
	rm -rf $(VENV) build dist *.egg-info
