# The front door: `make help` lists what there is. Every target installs what it needs
# (deploy/local/tools.sh) and builds one profile, `release`, so that nothing is compiled twice.

SCENARIO ?= peak-second
# KAFKA=1 plays the demo on Apache Kafka instead of the broker embedded in `trunkline dev`.
KAFKA ?= 0

TOOLS := deploy/local/tools.sh
BIN := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)/release
# A terminal gets cargo's progress bar; a log gets silence until something is wrong.
QUIET := $(shell test -t 2 || echo --quiet)
CARGO := cargo
export TRUNKLINE_KAFKA_HOME ?= $(shell $(TOOLS) path kafka)

.DEFAULT_GOAL := help
.PHONY: help demo test check bench load clean build tools \
	check-rust check-dependencies check-proto check-charts check-deploy check-environment

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build $(if $(filter 1,$(KAFKA)),tools) ## two minutes of a filing-season Monday on `trunkline dev` (KAFKA=1: on Apache Kafka)
	@$(TOOLS) redis
	@$(BIN)/loadtest demo --scenario filing-season-monday --kafka $(if $(filter 1,$(KAFKA)),apache,embedded)

test: tools ## every test, on real Redis and real Apache Kafka
	@echo "tests run on: $$($(TOOLS) version redis); $$($(TOOLS) version kafka)"
	@$(CARGO) test --release --workspace --locked --no-run $(QUIET)
	@$(CARGO) test --release --workspace --locked --no-fail-fast

load: build tools ## one scenario, every role a process of its own, real Redis and Kafka (SCENARIO=name)
	@$(BIN)/loadtest load --scenario $(SCENARIO)

bench: build tools ## decisions/s against a raw tonic stream, ns per input of the pool, the classifier
	@$(CARGO) bench --profile release --locked $(QUIET) -p domain -p intent --bench pool --bench classify
	@$(BIN)/loadtest bench

# The cheap ones first.
check: check-proto check-dependencies check-charts check-deploy check-rust check-environment ## everything but the tests: format, lints, docs, licences, contract, chart, image, scripts

check-rust: ## rustfmt, clippy and rustdoc, warnings refused
	@$(TOOLS) build && $(CARGO) fmt --all --check
	@$(CARGO) clippy --release --workspace --all-targets --locked $(QUIET) -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --workspace --no-deps --locked $(QUIET)

check-dependencies: ## licences, banned and duplicated crates, sources (deny.toml)
	@deploy/checks/dependencies.sh

check-proto: ## buf lint, and breaking changes of the contract against main
	@deploy/checks/proto.sh

check-charts: ## Helm lint and render, Kubernetes schemas (strict), who may call whom
	@deploy/checks/python.sh deploy/checks/chart.py

check-deploy: ## Dockerfile, compose file, shell scripts
	@deploy/checks/scripts.sh && deploy/checks/python.sh deploy/checks/compose.py

check-environment: build ## the options of each role's --help against the chart and the compose file
	@deploy/checks/python.sh deploy/checks/environment.py $(BIN)/trunkline

build: ## the two programs: trunkline and loadtest
	@$(TOOLS) build
	@$(if $(QUIET),echo "building (release; minutes the first time)")
	@$(CARGO) build --release --locked $(QUIET) --bin trunkline --bin loadtest

tools: ## installs what tests and loads need: Redis, Java, Apache Kafka
	@$(TOOLS) build redis kafka

clean: ## removes what was built and reported; keeps the installed tools
	@$(CARGO) clean $(QUIET) && rm -rf reports .cache
