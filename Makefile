# make check   what to run before each commit: format, lints, unit tests; seconds to two minutes
# make test    everything, in stages with their times; needs root for FUSE, QEMU and the appliance
# make demo    boots a real appliance from a swarm and reports what that cost; DEMO_ARGS="--fill idle" for instance
# make bench   the benchmarks of the core
# make deps    installs the Debian packages that are missing

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: check test demo bench fmt deps

check:
	tests/stages.sh check

test:
	tests/deps.sh test
	tests/stages.sh test

demo:
	tests/deps.sh demo
	$(CARGO) build --release -p vmtorrent-cli
	tests/demo/demo.py --binary $(TARGET)/release/vmtorrent $(DEMO_ARGS)

bench:
	$(CARGO) bench -p vmtorrent

fmt:
	$(CARGO) fmt --all

deps:
	tests/deps.sh test
