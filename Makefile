# Two commands do everything on a fresh Debian or Ubuntu machine with Rust: `make demo`, `make test`.

.PHONY: help setup demo servers test format lint doc build bench clean

help:    ## Show this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

setup:   ## Install the Debian packages that building, testing and image building need
	@scripts/setup

demo: setup build  ## Build everything, run real code in a sandbox and show the result
	@scripts/demo

servers:  ## Install what the tests show in a browser, below target/servers
	@scripts/setup --tests
	@scripts/servers

test: setup servers format lint doc  ## Everything that CI runs
	@# Half of a test is waiting.
	RUST_TEST_THREADS=$$((2 * $$(nproc))) timeout --foreground 3600 cargo test --workspace --locked
	@scripts/build
	@scripts/test-speed
	@scripts/demo
	@scripts/test-image
	@scripts/test-programs
	@scripts/test-sdk

format:  ## Fail on formatting
	cargo fmt --all -- --check

lint:    ## Fail on warnings
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc:     ## Fail on broken documentation
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet

build:   ## Build the static release binary, target/release/sandbar
	@scripts/build

bench: setup build  ## Measure this machine against SPECIFICATION.md
	@scripts/bench --previews --checkpoints --compare

clean:   ## Remove what was built, and the demo's image
	@if [ -L target/demo ]; then rm -rf "$$(readlink -f target/demo)"; fi
	cargo clean
