# Everything runs in .venv, which is made on first use. PYTHON and ARGS may be given:
#   make run ARGS="--listen 127.0.0.1:6000"
#   make test ARGS="-k fencing" ETCD=/usr/bin/etcd
#   make chaos SECONDS=600 SEED=1 ARGS="--keep --json chaos.json"
#   make fuzz REQUESTS=100000 SEED=7
#   make bench ARGS="--quick --json bench.json"
PYTHON ?= python3
ARGS ?=
ETCD ?=
SECONDS ?= 120
REQUESTS ?= 100000
SEED ?=
BROKEN ?=

BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help run test chaos fuzz bench check fmt proto picture lock notices audit sbom clean

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

run: .venv/run.stamp ## Serve with an embedded etcd; ARGS="..." are the flags of `operation-service serve`
	@exec $(BIN)/operation-service serve $(ARGS)

test: .venv/dev.stamp ## Run all tests against a real etcd; ARGS="..." go to pytest, ETCD=... names the binary
	$(if $(ETCD),TEST_ETCD_BINARY=$(ETCD)) $(BIN)/pytest --numprocesses 2 --dist worksteal $(ARGS)

chaos: .venv/dev.stamp ## Hurt a cluster while clients use it, and judge what they saw; SECONDS=120 SEED=... BROKEN=...
	@PYTHONPATH=tests exec $(BIN)/python -m chaos.run --seconds $(SECONDS) \
	  $(if $(SEED),--seed $(SEED)) $(if $(BROKEN),--broken $(BROKEN)) $(ARGS)

fuzz: .venv/dev.stamp ## Send bad requests to a service of its own; REQUESTS=..., SEED=... (default: any), ETCD=...
	@PYTHONPATH=tests $(if $(ETCD),TEST_ETCD_BINARY=$(ETCD)) exec $(BIN)/python -m fuzz \
	  --requests $(REQUESTS) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: .venv/bench.stamp ## Measure the service beside etcd and other locks; ARGS="--quick", "--only NAME", "--json FILE"
	@PYTHONPATH=tests exec $(BIN)/python -m benchmarks $(ARGS)

check: .venv/dev.stamp ## Look only: format, lint, types, architecture, protos, what is generated, Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/protos.py check
	$(BIN)/python -m tools.reference check
	$(BIN)/python -m tools.state_diagram check
	$(BIN)/python -m tools.lock check
	$(BIN)/python -m tools.notices check
	$(BIN)/hadolint Dockerfile

fmt: .venv/dev.stamp ## Change: format the code and the protos, apply the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write proto
	$(BIN)/buf format --write examples

proto: .venv/dev.stamp ## Change: generate src/n0stack, the descriptor sets and docs/reference.md from the protos
	$(BIN)/python tools/protos.py generate
	$(BIN)/python -m tools.reference generate

picture: .venv/dev.stamp ## Change: draw docs/states.svg, and write its table in docs/concepts.md
	$(BIN)/python -m tools.state_diagram generate

lock: .venv/dev.stamp ## Change: renew the versions and hashes of what goes into the image, requirements/, and their notices
	$(BIN)/python -m tools.lock generate
	$(BIN)/python -m tools.notices generate

notices: .venv/dev.stamp ## Change: write THIRD_PARTY_NOTICES.md from the wheels that go into the image
	$(BIN)/python -m tools.notices generate

audit: .venv/dev.stamp ## Look only: whether a known vulnerability is in requirements/; says so if it cannot be known
	$(BIN)/python -m tools.audit

sbom: .venv/dev.stamp ## Write the image's bill of materials to dist/operation-service.cdx.json (CycloneDX)
	$(BIN)/python -m tools.sbom dist/operation-service.cdx.json

clean: ## Remove everything that was made
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/run.stamp: pyproject.toml | .venv/bin/python
	@echo "setting up .venv (once)"
	$(PIP) --editable '.[etcd,grpcurl]'
	@touch $@

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	@echo "setting up .venv for development (once)"
	$(PIP) --editable '.[etcd,grpcurl,dev]'
	@touch $@ .venv/run.stamp

.venv/bench.stamp: pyproject.toml | .venv/bin/python
	@echo "setting up .venv for the benchmark (once)"
	$(PIP) --editable '.[etcd,grpcurl,bench]'
	@touch $@ .venv/run.stamp
