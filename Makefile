# make demo    the whole promise on real speech, in under a minute after the build
# make test    every test
# make lint    formatting, clippy, documentation, licences
# make bench   every benchmark, one table at the end (builds the release profile, RocksDB once more)
# make fuzz    every hostile-input property test with many more cases than `make test` gives it
# make deps    what Debian 12 with Rust lacks; the others call it
#
# `demo` and `test` share one profile, because RocksDB is most of a build. Where ~/.cache/quietus/target exists, it is built
# there, so that a fresh clone starts warm; CARGO_TARGET_DIR names another place.

SHELL := /bin/bash
CACHE := $(HOME)/.cache/quietus
CARGO_TARGET_DIR ?= $(if $(wildcard $(CACHE)/target/.),$(CACHE)/target,$(CURDIR)/target)
QUIETUS_PYTHON ?= $(CACHE)/venv/bin/python
QUIETUS_WEED ?= $(CACHE)/venv/bin/weed
FUZZ_CASES ?= 5000
export CARGO_TARGET_DIR QUIETUS_PYTHON QUIETUS_WEED

.PHONY: demo test lint bench fuzz deps

demo: deps
	cargo build --locked --bins --example demo
	"$(CARGO_TARGET_DIR)/debug/examples/demo"

test: deps
	cargo test --locked

lint: deps
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --document-private-items
	cargo test --locked --test tidy
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --locked check; else \
		echo "cargo-deny is not installed: tests/tidy.rs has looked for banned crates in Cargo.lock; licences and"; \
		echo "advisories were not checked (cargo install --locked cargo-deny, then this again)."; fi

bench: deps
	bash benches/run.sh

# Not coverage-guided: that needs a nightly compiler. The targets are the property tests whose names begin with `hostile`.
fuzz: deps
	PROPTEST_CASES=$(FUZZ_CASES) cargo test --locked --lib hostile

deps:
	@bash .ci/deps
