# make check   what to run before each commit: format, lints, unit tests; seconds to two minutes
# make test    everything, in stages with their times; needs root for FUSE, QEMU and the appliance
# make demo    boots a real appliance from a swarm and reports what that cost; DEMO_ARGS="--fill idle" for instance
# make bench   measures what is promised, against the local file and other programs; ROWS="boot-1ms pick" for some; needs root
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
	tests/deps.sh bench
	$(CARGO) build --release -p vmtorrent-cli -p vmtorrent-ffi -p vmtorrent-tests
	CARGO="$(CARGO)" tests/bench/bench.py --binaries $(TARGET)/release $(BENCH_ARGS) $(ROWS)

fmt:
	$(CARGO) fmt --all

deps:
	tests/deps.sh test
