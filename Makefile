PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_INSTALLED := $(VENV)/.demo-installed
BENCH_INSTALLED := $(VENV)/.bench-installed
DEV_INSTALLED := $(VENV)/.dev-installed

.PHONY: demo test check format results tables online bench kills tree features clean

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

# Representations, ours and the peers', by the same questions; writes docs/results.md. It takes hours and needs the logs, so
# name tasks: make results TASK=churn.
results: $(BENCH_INSTALLED)
	PYTHONPATH=benchmarks $(BIN)/python -m contest $(if $(TASK),--task $(TASK))

# The paper's Tables 1 and 2 on a simulated market: make tables TABLE=table1 PRESET=recommended.
tables: $(BENCH_INSTALLED)
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/paper_tables.py --table $(TABLE) --preset $(PRESET)

# The paper's Tables 3 and 4 on a simulated market.
online: $(BENCH_INSTALLED)
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/online_tables.py

# Measures speed and memory beside the naive way, peers and the machine's limit; hours for all parts, so name some:
# make bench PART=encoder.
bench: $(BENCH_INSTALLED)
	PYTHONPATH=benchmarks $(BIN)/python -m performance $(addprefix --part ,$(PART)) $(addprefix --device ,$(DEVICE))

# Kills each command at random moments while a reader reads; writes docs/kills.md. It takes about an hour.
kills: $(BENCH_INSTALLED)
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/kills.py

# The hand-made features, and the market's parameters, as tables.
features: $(DEV_INSTALLED)
	PYTHONPATH=tests $(BIN)/python tests/manual_features_page.py
	PYTHONPATH=tests $(BIN)/python tests/market_parameters_page.py

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
	rm -rf $(VENV) demo-output bench-work kills-work online-work .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
