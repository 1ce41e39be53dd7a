# One command each. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench soak lint docs install

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what building and testing need and this machine lacks
	@scripts/setup.sh

demo: setup ## Build, make the example project, run it twice, show what arrived
	@scripts/demo.sh

test: setup ## Everything that must hold: imports, format, links, all tests
	@scripts/test.sh

bench: setup ## Speed, CPU and memory beside the physical limit of this machine
	@benches/run.sh

soak: setup ## Kill loads at random TRIB_KILLS (30) times each, compare what arrives
	@scripts/soak.sh

lint: setup ## Format, clippy, imports, links, licences and advisories
	@scripts/lint.sh

docs: ## The guide (mdBook) and the API documentation
	@scripts/docs.sh

install: setup ## Put `trib` into cargo's bin folder
	cargo install --locked --path crates/cli
