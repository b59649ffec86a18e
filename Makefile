# Two commands do all the set-up on a machine with Python 3.11 and pip:
#   make compare   the main job on the data that come with lipo
#   make test      the tests
PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: help compare test lint format ui docs constraints demo-data clean

help: ## Show what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "lipo needs Python 3.11 or newer"'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time)"
	$(PIP_INSTALL) -e .
	@touch $@

# kronfluence without its torchvision, which it never imports: the wheel on PyPI breaks transformers
# beside a CPU build of torch.
$(VENV)/installed-dev: $(VENV)/installed
	$(PIP_INSTALL) -e '.[dev]'
	$(PIP_INSTALL) --no-deps kronfluence
	@touch $@

compare: $(VENV)/installed ## Run the main job: does the data that TS-DShapley chooses help LoRA?
	$(BIN)/lipo compare --selection tsds --peft lora

test: $(VENV)/installed-dev ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/installed-dev ## Check format, style, types and who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

ui: $(VENV)/installed ## Open the MLflow UI on mlruns/
	$(BIN)/lipo ui

docs: $(VENV)/installed-dev ## Write docs/cli.md anew from --help
	$(BIN)/python docs/make_cli_page.py

# Local versions (+cpu) are cut off: no index but PyTorch's own has them.
constraints: ## Resolve the pinned versions anew, in a fresh environment
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet '.[dev]'
	build/constraints/bin/python -m pip install --quiet --no-deps 'kronfluence<1.1'
	{ echo '# Made by `make constraints`: every version that the tests passed with.'; \
	  build/constraints/bin/python -m pip freeze --exclude lipo | grep -v ' @ ' | sed 's/+cpu$$//'; } > constraints.txt
	rm -rf build/constraints

demo-data: $(VENV)/installed ## Make the demo set anew (bit for bit the same)
	$(BIN)/python -m lipo_cli.chem.demo_set --out lipo_cli/chem/demo

clean: ## Remove the environment and caches; mlruns/ stays
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
