# Ambit: every task a person or CI runs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# A cluster of our own is made only where none is given: KUBECONFIG=... uses that one.
CLUSTER ?= ambit
export CLUSTER
ifeq ($(origin KUBECONFIG),undefined)
# Exported, because a make that a recipe starts finds KUBECONFIG set by this one.
export OWN_CLUSTER := cluster
ifeq ($(CLUSTER),ambit)
export KUBECONFIG := $(CURDIR)/.cluster/admin.kubeconfig
else
export KUBECONFIG := $(CURDIR)/.cluster/$(CLUSTER)/admin.kubeconfig
endif
else
export KUBECONFIG
endif
# kubectl of the path, else the one the test cluster was built with.
export KUBECTL ?= $(shell command -v kubectl || echo $(CURDIR)/tests/kind/kubectl)

CARGO := cargo
TARGET := x86_64-unknown-linux-gnu
BUILT := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release
STATIC := -C target-feature=+crt-static
# What `make test` runs, in this order.
STAGES ?= unit netns cluster
PROGRAMS := ambit-operator ambit-ztunnel ambit-waypoint ambit-node-agent ambit-cni-plugin

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: PROGRAMS += demo
demo: install gateway-api ## from nothing to an enrolled namespace, shown as a table of checks
	@$(BUILT)/demo

.PHONY: test
test: ## unit, model, namespace and cluster tests; last line: N passed, N failed
	@tests/run.sh $(STAGES)

.PHONY: test-unit
test-unit: ## tests that need no root and no cluster
	@tests/run.sh unit

.PHONY: test-netns
test-netns: ## tests in network namespaces of their own, with the real redirection (root)
	@tests/run.sh netns

.PHONY: conformance
conformance: $(OWN_CLUSTER) install ## the Gateway API's mesh conformance suite; events and report in target/conformance
	@tests/conformance.sh

.PHONY: conformance-control
conformance-control: $(OWN_CLUSTER) ## the same suite where no mesh is: all but plain requests must fail
	@tests/conformance.sh --control

.PHONY: e2e
e2e: gateway-api ## cluster tests alone, against a cluster on which `make install` has run
	@tests/run.sh e2e

.PHONY: soak-tests
soak-tests: gateway-api install ## cluster tests ten times in a row beside two busy loops (hours; not part of CI)
	@tests/soak.sh

.PHONY: reboot-tests
reboot-tests: install ## REBOOTS (100) restarts of a node while another program rewrites its conflist, captured on the wire
	@REBOOTS=$${REBOOTS:-100} $(CARGO) test --locked -p ambit-kind-tests --test reboot -- --ignored --nocapture

.PHONY: cluster
cluster: ## start the two-node test cluster, or say that it runs
	@tests/kind/up.sh

.PHONY: cluster-down
cluster-down: ## remove the test cluster
	@tests/kind/down.sh

.PHONY: build
build: ## the programs as static binaries
	@RUSTFLAGS="$(STATIC)" MAKEFLAGS= $(CARGO) build --locked --release --target $(TARGET) $(PROGRAMS:%=--bin %)

# The cluster waits for the network while it loads and starts; the compiler has use for the cores then.
.PHONY: cluster-beside-build
cluster-beside-build:
	@$(MAKE) --no-print-directory -j2 $(OWN_CLUSTER) build PROGRAMS="$(PROGRAMS)"

.PHONY: images
images: build ## one FROM-scratch image a program, and the test images
	@images/build.sh

.PHONY: load
load: cluster-beside-build images ## put the images onto the cluster's nodes, without a registry
	@tests/kind/load.sh target/images/*.tar

.PHONY: install
install: load ## install the operator (config/install.yaml) and wait for it
	@tests/install.sh

.PHONY: providers
providers: ## the image of the providers that tests of external authorization ask
	@images/build.sh ambit-authz
	@tests/kind/load.sh target/images/ambit-authz.tar

.PHONY: gateway-api
gateway-api: $(OWN_CLUSTER) ## install the Gateway API's CRDs where the cluster has none
	@tests/kind/gateway-api.sh

.PHONY: gen
gen: ## write crds/ and config/ from the Rust types
	@$(CARGO) xtask gen

.PHONY: ebpf
ebpf: ## rebuild the eBPF programs and put the object beside their source
	@crates/redirect-ebpf/build.sh

.PHONY: fmt
fmt: ## format
	@$(CARGO) fmt --all

.PHONY: lint
lint: ## format check, clippy with warnings denied, layers, files, generated files
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@$(CARGO) xtask check

.PHONY: deny
deny: ## licences, bans and sources of dependencies
	@PATH="$${AMBIT_CACHE:-$$HOME/.cache/ambit}/tools/bin:$$PATH" $(CARGO) deny --locked check licenses bans sources

.PHONY: bench
bench: ## side-by-side benchmarks, printed as ratios
	@$(CARGO) bench --locked --workspace

.PHONY: bench-waypoint
bench-waypoint: ## stock Envoy, a bare hyper proxy and the waypoint side by side (root)
	@RUSTFLAGS="$(STATIC)" $(CARGO) build --locked --release --target $(TARGET) -p ambit-waypoint -p ambit-waypoint-bench
	@benches/waypoint/run.sh $(BUILT)/ambit-waypoint-bench $(BUILT)/ambit-waypoint

.PHONY: bench-control-plane
bench-control-plane: ## what the index and the publication cost at four sizes of cluster, and how that grows
	@$(CARGO) run --locked --release -p ambit-control-plane-bench

.PHONY: ci
ci: ## exactly what CI runs
	@.ci/run
