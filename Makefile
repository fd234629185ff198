# Every target sets up .venv by itself. `make help` lists them.

# The Python that makes .venv. Empty: the first of python3.13, 3.12, 3.11 and python3 that fits.
PYTHON ?=
IMAGE ?= halffull:dev
# More arguments for the command of a target: make test ARGS='-k router', make demo ARGS='--seconds 30'.
ARGS ?=
# Processes that share the tests, file by file. Each that needs one starts a control plane of its own (0.5 GB).
PROCESSES ?= 3

.DEFAULT_GOAL := help
.PHONY: help venv binaries demo test check format crds image e2e test-vllm compiled test-compiled chaos fuzz bench bench-proxy bench-policies bench-operator bench-schedulers figures constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile

venv: ## create .venv, or bring it up to date
	@hack/venv '$(PYTHON)'

binaries: venv ## build the programs of a control plane that are not on this machine
	@.venv/bin/python tests/cluster/binaries.py

demo: venv ## show a live policy swap on four simulated engines
	.venv/bin/halffull demo $(ARGS)

test: venv binaries ## run the tests, those on a real control plane too
	.venv/bin/pytest -m 'not e2e and not vllm' --numprocesses=$(PROCESSES) --dist=loadfile $(ARGS)

check: venv ## lint, format, types, layers, generated files
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	hack/generate --check

format: venv ## format the code, and fix what ruff can fix
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

crds: venv binaries ## write the generated files: manifests/crds, the chart's copies, manifests/install.yaml
	hack/generate

image: ## build the container image $(IMAGE)
	hack/image '$(IMAGE)'

e2e: venv binaries ## test $(IMAGE) on the cluster of $KUBECONFIG
	IMAGE='$(IMAGE)' hack/with-kubernetes-clients .venv/bin/pytest -m e2e tests/e2e $(ARGS)

test-vllm: venv ## test with real vLLMs; $HALFFULL_VLLM_SERVE is a command `serve PORT [options of vllm serve]`
	.venv/bin/pytest -m vllm tests/clients tests/real_vllm $(ARGS)

compiled: build/compiled ## compile the data path, as the image has it

build/compiled: $(shell find operator -type f -not -name '*.pyc') pyproject.toml constraints.txt hack/compiled | venv
	hack/compiled $@

test-compiled: compiled ## run the tests over sockets with the data path compiled, as the image has it
	PYTHONPATH=build/compiled .venv/bin/pytest --numprocesses=$(PROCESSES) --dist=loadfile -m 'not uncompiled' tests/integration $(ARGS)

chaos: venv binaries ## play faults before a router under load: ARGS='kill-half soak --requests 1000000'
	PYTHONPATH=tests .venv/bin/python -m chaos $(ARGS)

fuzz: venv ## feed the data path a million mutated byte streams: ARGS='--seed 7 --streams 200000'
	PYTHONPATH=tests .venv/bin/python tests/fuzz.py $(ARGS)

bench: venv ## measure the router
	.venv/bin/python bench/run.py $(ARGS)

bench-proxy: venv ## measure the router next to other proxies
	.venv/bin/python bench/run.py proxy $(ARGS)

bench-policies: venv ## measure one decision of each policy
	.venv/bin/python bench/run.py policies $(ARGS)

figures: venv ## simulate every policy for the table in docs/policies.md: some minutes
	.venv/bin/python docs/figures.py

bench-operator: venv binaries ## measure the operator: 500 resources, 100 engines; scrapes with up to 64 routers
	.venv/bin/python bench/run.py operator $(ARGS)

bench-schedulers: venv ## judge the schedulers by simulation: ARGS='--traces DIR', ARGS=--quick
	.venv/bin/python bench/run.py schedulers $(ARGS)

constraints: ## write constraints.txt anew
	hack/constraints "$${PYTHON:-python3.11}"

clean: ## remove what the other targets made here
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
