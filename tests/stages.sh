#!/bin/bash
# Runs the stages of `make check` or `make test` in order and tells the time of each; stops at the first that fails.
# Use: stages.sh check|test
# The integration tests skip what the machine can't do; with VMTORRENT_REQUIRE=1 (set when CI is) a skip is a failure.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
[ -z "${CI:-}" ] || export VMTORRENT_REQUIRE="${VMTORRENT_REQUIRE:-1}"
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/tools/bin"
tools=$(cd "$target/tools" && pwd)
export PATH=$tools/bin:$PATH
prefix=${tools%/tools}/c-prefix
floors=(-p vmtorrent-platform -p vmtorrent -p vmtorrent-cli)
table=()

stage() {
    local name=$1 begin=$SECONDS status=0
    shift
    printf '\n=== %s\n' "$name"
    "$@" || status=$?
    table+=("$(printf '%5d s  %s' $((SECONDS - begin)) "$name")")
    if [ $status != 0 ]; then
        table[-1]+="  FAILED (status $status)"
        summary
        exit 1
    fi
}

summary() {
    printf '\n=== times\n'
    printf '%s\n' "${table[@]}"
    printf '%5d s  in all\n' $SECONDS
}

# nextest where it is installed, with its hang protection (.config/nextest.toml).
tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --no-tests=pass "$@"
    else
        cargo test "$@"
    fi
}

integration() {
    export VMTORRENT_BIN=${VMTORRENT_BIN:-$(cd "$target" && pwd)/debug/vmtorrent}
    export VMTORRENT_LIB=${VMTORRENT_LIB:-$(cd "$target" && pwd)/debug/libvmtorrent_ffi.so}
    export VMTORRENT_PREFIX=$prefix
    # Each test starts several processes, some a whole machine.
    RUST_TEST_THREADS=2 NEXTEST_TEST_THREADS=2 tests -p vmtorrent-tests
}

documentation() {
    RUSTDOCFLAGS=-Dwarnings cargo doc --quiet --no-deps --workspace
}

dependencies() {
    if ! cargo deny --version >/dev/null 2>&1; then
        # From source, as no registry has a build of it that reads today's cargo metadata.
        cargo install --quiet --locked --debug --root "$tools" cargo-deny@0.20.2 || return
    fi
    cargo deny --log-level error check bans licenses sources
}

# The C ABI: its header is what its sources say, and its tests pass.
c_abi() {
    if [ "$(cbindgen --version 2>/dev/null)" != "cbindgen 0.29.4" ]; then
        cargo install --quiet --locked --debug --root "$tools" cbindgen@0.29.4 || return
    fi
    ffi/header.sh check && tests -p vmtorrent-ffi --features test-hooks
}

# What the library does without the features that may be left out.
without_features() {
    cargo clippy -p vmtorrent-ffi --no-default-features -- -D warnings &&
        cargo test --quiet -p vmtorrent-platform -p vmtorrent --no-default-features --lib without_
}

# Installs the C library as a distribution would, for tests/tests/c_api.rs.
c_library() {
    if ! cargo cinstall --version >/dev/null 2>&1; then
        # The last one that Rust 1.90 builds; no registry has a build of it. It takes four minutes, the first time.
        CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root "$tools" --bin cargo-cinstall \
            cargo-c@0.10.19 || return
    fi
    rm -rf "$prefix"
    cargo cinstall --quiet --locked --debug -p vmtorrent-ffi --prefix "$prefix" --libdir "$prefix/lib"
}

demo() {
    cargo build --release -p vmtorrent-cli && tests/demo/demo.py --binary "$target/release/vmtorrent"
}

case ${1:-} in
check)
    stage fmt cargo fmt --all --check
    stage clippy cargo clippy --workspace --all-targets -- -D warnings
    stage "unit tests" tests "${floors[@]}" --lib --bins
    ;;
test)
    stage fmt cargo fmt --all --check
    stage clippy cargo clippy --workspace --all-targets -- -D warnings
    stage documentation documentation
    stage dependencies dependencies
    stage "tests of the crates" tests "${floors[@]}"
    stage "C ABI" c_abi
    stage "examples in the documentation" cargo test --doc --workspace
    stage "without features" without_features
    stage "dev binaries" cargo build -p vmtorrent-cli -p vmtorrent-ffi -p vmtorrent-librqbit-peer
    stage "C library, installed" c_library
    if [ "$(id -u)" = 0 ]; then
        stage appliance tests/appliance/build.sh "${VMTORRENT_DEMO_DIR:-.demo}"
    fi
    stage "integration tests" integration
    stage fuzzing fuzz/run.sh profile 60
    if [ "$(id -u)" = 0 ]; then
        stage "self-test of the benchmarks" tests/bench/bench.py --self-test --binaries "$target/debug"
        stage demo demo
    elif [ -n "${VMTORRENT_REQUIRE:-}" ]; then
        stage "demo (needs root)" false
    else
        printf '\nskipped: the demo needs root\n'
    fi
    ;;
*)
    echo "use: $0 check|test" >&2
    exit 2
    ;;
esac
summary
