# Everything a developer or CI runs. `make setup` is implied by the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
IMAGE ?= shoal

.PHONY: help setup warm demo serve gateway test test-gateway go-tools fuzz faults load mongo-server docs screenshots test-gpu lint format proto lock bench gpu-bench gpu-check image clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(READY) ## Make the environment in .venv from the lock file

$(READY): requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "shoal needs Python 3.11 or newer, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m gpu.warm --ours
	touch $(READY)

warm: $(READY) ## Compile ahead what evoc and umap would compile at first use (some minutes)
	$(BIN)/python -m gpu.warm

demo: $(READY) ## Cluster the standard library's documentation and show the groups
	$(BIN)/shoal demo --data-dir .demo

serve: $(READY) ## Serve on 127.0.0.1:50051 without keys
	$(BIN)/shoal serve --dev

gateway: $(READY) ## REST on 127.0.0.1:8080 for the server of `make serve`
	$(BIN)/shoal gateway

test: $(READY) ## Run the tests (no GPU, no network, no other server needed)
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

fuzz: $(READY) ## Send random requests and filters for some minutes; EXAMPLES for each call
	SHOAL_FUZZ_EXAMPLES=$(or $(EXAMPLES),1000) $(BIN)/python -m pytest -n 2 -q tests/server/api/test_fuzz.py

faults: $(READY) ## Kill, stop, fill and silence what runs need, at each stage; ends with a table
	$(BIN)/python -m pytest -m faults -n 2 -q tests/faults tests/server/dask_cluster

# `make load SECONDS=600` looks for memory that grows.
SECONDS ?= 20
load: $(READY) ## 1 000 watchers, 200 calls/s and 500 queued runs on one server; prints a table
	$(BIN)/python benchmarks/load.py --seconds $(SECONDS)

test-gateway: $(READY) go-tools ## Call a server with grpcurl, Go and schemathesis (minutes; Go is optional)
	$(BIN)/python -m pytest -m tools tests/gateway -q -rs

GO_TOOLS := github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3 \
	google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.10 \
	google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1 \
	sigs.k8s.io/kustomize/kustomize/v5@v5.7.1

go-tools: ## Build in .tools/bin what `make test-gateway` calls (Go)
	@command -v go >/dev/null || { echo "go is not installed: tests that need its tools are skipped"; exit 0; }; \
	for tool in $(GO_TOOLS); do \
		GOBIN=$(CURDIR)/.tools/bin go install $$tool || exit 1; done

mongo-server: ## Build the MongoDB stand-in that the store tests use when it is there (Java, Maven)
	mvn -q -f tests/mongo_server package

# Seconds after which no further test and no part of the benchmark goes on. In an environment of
# one's own (the extra gpu, pytest, pytest-asyncio and pytest-timeout; once `python -m gpu.warm
# --ours`): `make gpu-check BIN=/path/to/bin READY=`.
GPU_SECONDS ?= 540

gpu-check: $(READY) ## Run the device tests; a table and a result file, or why there is no GPU
	$(BIN)/python -m pytest -m gpu tests/gpu/test_device_calls.py tests/gpu_device -q -r fE \
		--session-timeout $(GPU_SECONDS) --results benchmarks/results

test-gpu: gpu-check

lint: $(READY) ## Style, types, contract, and what the house forbids
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy server gpu benchmarks proto/generate.py docs/generate.py
	$(BIN)/python proto/generate.py --check --lint
	$(BIN)/python docs/generate.py --check
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose.yaml
	$(BIN)/python -m pytest -q tests/test_house.py

format: $(READY) ## Rewrite the code as `make lint` wants it
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(READY) ## Build the documentation as a site in build/docs; a broken link fails
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

screenshots: $(READY) ## Take docs/images anew of a real server (Chromium, the Debian data; minutes)
	$(BIN)/python -m pytest -m screenshots -q -rs tests/docs

proto: $(READY) ## Regenerate stubs, descriptor set, OpenAPI, the containers' gateway, pages of docs/
	$(BIN)/python proto/generate.py
	$(BIN)/python docs/generate.py
	$(BIN)/python -m server.gateway > docker/envoy.yaml

lock: $(READY) ## Resolve pyproject.toml anew into the lock files
	$(BIN)/uv pip compile --quiet --no-emit-index-url --no-header --generate-hashes --universal \
		--python-version 3.11 pyproject.toml --extra viz -o requirements.txt
	$(BIN)/uv pip compile --quiet --no-emit-index-url --no-header --generate-hashes --universal \
		--python-version 3.11 pyproject.toml --extra dev -c requirements.txt -o requirements-dev.txt
	$(BIN)/uv pip compile --quiet --no-emit-index-url --no-header --generate-hashes \
		--python-platform x86_64-manylinux_2_28 --python-version 3.11 pyproject.toml --extra gpu \
		-o requirements-gpu.txt

bench: $(READY) ## Measure against the peers; tables on screen, JSON in benchmarks/results
	$(BIN)/python benchmarks/hdbscan.py --json benchmarks/results/hdbscan-cpu.json
	$(BIN)/python benchmarks/kmeans.py --json benchmarks/results/kmeans-cpu.json
	$(BIN)/python benchmarks/inertia.py
	$(BIN)/python benchmarks/hdbscan_sizes.py
	$(BIN)/python benchmarks/describing.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/latency.py --json benchmarks/results/latency.json
	$(BIN)/python benchmarks/auto.py
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/writing.py
	$(BIN)/python benchmarks/job.py
	$(BIN)/python benchmarks/map.py
	$(BIN)/python benchmarks/spreading.py
	$(BIN)/python benchmarks/render.py

gpu-bench: $(READY) ## Measure on the GPU, beside bare cuML (ONLY="kmeans umap"), or why there is none
	PYTHONPATH=. $(BIN)/python benchmarks/device.py --seconds $(GPU_SECONDS) $(addprefix --only ,$(ONLY))

image: ## Build the images for CPU, GPU and gateway (needs a Docker engine)
	docker build -f docker/Dockerfile --target cpu -t $(IMAGE):cpu .
	docker build -f docker/Dockerfile --target gpu -t $(IMAGE):gpu .
	docker build -f docker/Dockerfile --target gateway -t $(IMAGE)-gateway:envoy .

clean: ## Remove what the targets above made
	rm -rf $(VENV) .tools .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
