# make sweep          installs what is needed, then runs sweeps/quickstart.yaml (or SWEEP=path.yaml; SET="steps=2000" changes keys)
# make test           installs what is needed, then runs the fast tests
# make help           lists every target

SWEEP ?= sweeps/quickstart.yaml
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

# uv is pinned by the same lock file as everything else; pip installs it from its entry there.
# --compile-bytecode: each process of a sweep imports torch and Ray. Compiling them takes a minute once, and halves the import time
# where Python does not write bytecode itself (PYTHONDONTWRITEBYTECODE, as in many containers).
$(INSTALLED): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one with PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.lock
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: install
install: $(INSTALLED) ## Install into .venv (all other targets do so when needed).

.PHONY: sweep
sweep: $(INSTALLED) ## Run a sweep: SWEEP=path.yaml, by default the quick start; SET="steps=2000 seeds=[0,1]" changes keys.
	$(BIN)/vlm-rm sweep $(SWEEP) $(foreach each,$(SET),--set '$(each)')

.PHONY: analysis
analysis: $(INSTALLED) ## Draw a sweep's figures: SWEEP_RUN=results/quickstart-...
	@test -n "$(SWEEP_RUN)" || { echo "name the sweep's folder: make analysis SWEEP_RUN=results/quickstart-..." >&2; exit 2; }
	$(BIN)/python analysis/figures.py $(SWEEP_RUN)

.PHONY: gallery
gallery: $(INSTALLED) ## Write a page of docs/gallery from a sweep's results: SWEEP_RUN=results/quickstart-...
	@test -n "$(SWEEP_RUN)" || { echo "name the sweep's folder: make gallery SWEEP_RUN=results/quickstart-..." >&2; exit 2; }
	$(BIN)/python analysis/figures.py $(SWEEP_RUN)
	$(BIN)/python docs/gallery.py $(SWEEP_RUN)

.PHONY: pretrain
pretrain: $(INSTALLED) ## Train the embedded models as they ship (takes hours), and write their model card: SEED=0.
	$(BIN)/vlm-rm pretrain --seed $(or $(SEED),0) --from vlm_rm_sweeps/rewards/embedded/v1
	$(BIN)/vlm-rm pretrain evaluate results/pretraining/seed-$(or $(SEED),0)

.PHONY: mlflow
mlflow: $(INSTALLED) ## Open the results in MLflow, at http://127.0.0.1:5000.
	@test -f results/mlflow.db || { echo "no results yet: run make sweep first" >&2; exit 2; }
	env MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true $(BIN)/mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///results/mlflow.db

.PHONY: dashboard
dashboard: $(INSTALLED) ## Watch the running sweep in Prometheus and Grafana (prints what to install if they are missing).
	$(BIN)/vlm-rm dashboard

.PHONY: test
test: $(INSTALLED) ## Run the fast tests.
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not sweeps and not slow and not browser and not faults and not fuzz and not cluster"

.PHONY: test-sweeps
test-sweeps: $(INSTALLED) ## Run the tests of whole sweeps and trials, also killed and resumed.
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "sweeps and not slow"

.PHONY: test-slow
test-slow: $(INSTALLED) ## Run the slow tests: whole sweeps, the wheel, the examples that need Ray, and whether the quick start learns.
	$(BIN)/python -m pytest -m slow

.PHONY: test-browser
test-browser: $(INSTALLED) ## Run the tests of the label page and the report in a headless Chromium: CHROMIUM=path if it is not found.
	$(BIN)/python -m pytest -m browser

# Beside .venv, not in it: open_clip imports transformers wherever it is installed, and each process would take a second longer.
HF := .venv-hf
$(HF)/.installed: $(INSTALLED) requirements-hf.lock
	$(BIN)/uv pip install --python $(BIN)/python --target $(HF) --no-deps --require-hashes --requirement requirements-hf.lock
	touch $@

.PHONY: test-hf
test-hf: $(HF)/.installed ## Run the tests of models that need transformers (the extra hf), which other targets skip.
	env PYTHONPATH=$(CURDIR)/$(HF) $(BIN)/python -m pytest -m hf tests/rewards

.PHONY: test-faults
test-faults: $(INSTALLED) ## Inject faults into real sweeps at random moments and write results/faults.txt: FAULTS=20 SEED=...
	env FAULTS_TABLE=results/faults.txt $(BIN)/python -m pytest -m faults -s tests/faults

.PHONY: test-cluster
test-cluster: $(INSTALLED) ## Run sweeps on several Ray nodes, each in a network of its own, lose some, and write results/cluster.txt. It needs root.
	env CLUSTER_TABLE=results/cluster.txt $(BIN)/python -m pytest -m cluster -s tests/cluster

.PHONY: test-fuzz
test-fuzz: $(INSTALLED) ## Try 10 000 odd sweep files, arguments, results, environments and requests (minutes), and write results/fuzz.txt: SEED=...
	env FUZZ_TABLE=results/fuzz.txt $(BIN)/python -m pytest -m fuzz -s $(if $(SEED),--hypothesis-seed=$(SEED)) tests/fuzz

.PHONY: check
check: $(INSTALLED) ## Lint and check types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: bench
bench: $(INSTALLED) ## Measure the speeds that docs/explanation/speed.md states (minutes), and write results/benchmarks/*.json.
	mkdir -p results/benchmarks
	for each in reward_pool rendering update specs sharing precision; do \
		$(BIN)/python benchmarks/$$each.py --json results/benchmarks/$$each.json || exit 1; done

.PHONY: bench-trials
bench-trials: $(INSTALLED) ## Measure whole trials and sweeps, beside loops of stable-baselines3, and their start (minutes).
	mkdir -p results/benchmarks
	for each in end_to_end servers env_runners startup; do \
		$(BIN)/python benchmarks/$$each.py --json results/benchmarks/$$each.json || exit 1; done

.PHONY: bench-gpu
bench-gpu: $(INSTALLED) ## Measure a machine with a GPU: encoding, drawing, the paper's humanoid.
	mkdir -p results/benchmarks
	$(BIN)/python benchmarks/gpu.py --json results/benchmarks/gpu.json

.PHONY: schema
schema: $(INSTALLED) ## Write anew what follows from the code: sweeps/schema.json, and the tables of docs/reference.
	$(BIN)/vlm-rm schema > sweeps/schema.json
	$(BIN)/python docs/generate.py

# The site needs nothing of .venv: mkdocstrings reads the code without importing it.
DOCS := .venv-docs
$(DOCS)/.installed: docs/requirements.lock
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement docs/requirements.lock
	touch $@

.PHONY: docs
docs: $(DOCS)/.installed ## Build the documentation into build/docs; a broken link or reference is an error.
	env NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@echo "open build/docs/index.html"

.PHONY: lock
lock: $(INSTALLED) ## Resolve the dependencies and update the four lock files.
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --extra dev --upgrade pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --extra hf --upgrade pyproject.toml \
		--constraint requirements.lock $$(sed -n 's/^\([a-z0-9_.-]*\).*==.*/--no-emit-package \1/p' requirements.lock) \
		--output-file requirements-hf.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --group docs --upgrade --output-file docs/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --group mlflow-server --constraint requirements.lock --upgrade --output-file deploy/requirements.lock
