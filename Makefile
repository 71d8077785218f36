PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_INSTALLED := $(VENV)/.demo-installed
BENCH_INSTALLED := $(VENV)/.bench-installed
DEV_INSTALLED := $(VENV)/.dev-installed

.PHONY: demo test check format results bench tree features clean

# The whole path on real data: events, minutes, encoder, embeddings, evaluation, report.
demo: $(DEMO_INSTALLED)
	$(BIN)/infobehavior demo

# What must pass before a change is merged.
test: check
	$(BIN)/pytest

check: $(DEV_INSTALLED)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_INSTALLED)
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

# Measures the path on real event logs and writes docs/results.md; about an hour and a half, and it needs the logs.
results: $(DEMO_INSTALLED)
	$(BIN)/python benchmarks/results.py

# Measures speed and memory beside the naive way, peers and the machine's limit; hours for all parts, so name some:
# make bench PART=encoder.
bench: $(BENCH_INSTALLED)
	PYTHONPATH=benchmarks $(BIN)/python -m performance $(addprefix --part ,$(PART)) $(addprefix --device ,$(DEVICE))

# The hand-made features as a table.
features: $(DEV_INSTALLED)
	PYTHONPATH=tests $(BIN)/python tests/manual_features_page.py

# The README names each file of the package, with the first sentence of its docstring.
tree:
	$(PYTHON) tests/source_tree.py

$(DEMO_INSTALLED): pyproject.toml constraints.txt
	@echo "Installing infobehavior and its demo data into $(VENV); this takes a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[demo]"
	@touch $@

$(BENCH_INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[bench]"
	@touch $@

$(DEV_INSTALLED): pyproject.toml constraints.txt
	@echo "Installing infobehavior and its development tools into $(VENV); this takes a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[demo,dev]"
	@touch $(DEMO_INSTALLED) $@

clean:
	rm -rf $(VENV) demo-output bench-work .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
