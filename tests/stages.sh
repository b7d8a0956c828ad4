#!/bin/bash
# Runs the stages of `make check` or `make test` in order and tells the time of each; stops at the first that fails, or
# with KEEP_GOING=1 runs the rest too.
# Use: stages.sh check|test
# The integration tests skip what the machine can't do; with VMTORRENT_REQUIRE=1 (set when CI is) a skip is a failure.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
[ -z "${CI:-}" ] || export VMTORRENT_REQUIRE="${VMTORRENT_REQUIRE:-1}"
target=${CARGO_TARGET_DIR:-target}
# No public node of the DHT is asked.
export VMTORRENT_DHT_BOOTSTRAP=
mkdir -p "$target"
target=$(cd "$target" && pwd)
# The tools that are built from source take ten minutes: they serve all checkouts of this user.
tools=${VMTORRENT_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/vmtorrent-tools}
mkdir -p "$tools/bin"
export PATH=$tools/bin:$PATH
prefix=$target/c-prefix
# One choice of packages and features, so that all that is tested is compiled once.
all=(--workspace --features vmtorrent-ffi/test-hooks)
table=()
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

stage() {
    local name=$1 begin=$SECONDS status=0
    shift
    printf '\n=== %s\n' "$name"
    "$@" > >(tee "$log") 2>&1 || status=$?
    table+=("$(printf '%5d s  %s' $((SECONDS - begin)) "$name")")
    if [ $status != 0 ]; then
        table[-1]+="  FAILED (status $status)"
        failed=1
        [ -z "${KEEP_GOING:-}" ] || return 0
        summary
        # Last, where it is seen in a log of which only the end was kept; tee may be a moment behind.
        sleep 1
        printf '\n=== the end of %s\n' "$name"
        tail -n 30 "$log"
        exit 1
    fi
}

summary() {
    printf '\n=== times\n'
    printf '%s\n' "${table[@]}"
    printf '%5d s  in all\n' $SECONDS
}

# Runs the tests of some packages: with nextest where it is installed, for its hang protection (.config/nextest.toml).
# Use: tests PACKAGE... [-- OPTION...]
tests() {
    local packages=() only=
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        packages+=(-p "$1")
        only+="${only:+ | }package($1)"
        shift
    done
    [ $# = 0 ] || shift
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run "${all[@]}" -E "$only" ${KEEP_GOING:+--no-fail-fast} "$@"
    else
        cargo test "${packages[@]}" "$@"
    fi
}

# All that is run later: libraries, programs and tests.
build() {
    cargo build "${all[@]}" --lib --bins --tests --examples
}

integration() {
    export VMTORRENT_BIN=${VMTORRENT_BIN:-$target/debug/vmtorrent}
    export VMTORRENT_LIB=${VMTORRENT_LIB:-$prefix/lib/libvmtorrent.so}
    export VMTORRENT_PREFIX=$prefix
    # Each test starts several processes, some a whole machine.
    RUST_TEST_THREADS=2 NEXTEST_TEST_THREADS=2 tests vmtorrent-tests
}

documentation() {
    RUSTDOCFLAGS=-Dwarnings cargo doc --quiet --no-deps --workspace
}

# Installs a program from source, in the version that is named, unless it is there. No registry has builds of them.
# Use: tool CRATE VERSION [OPTION...]
tool() {
    local name=$1 version=$2
    shift 2
    if ! grep -q "^\"$name $version[+ ]" "$tools/.crates.toml" 2>/dev/null; then
        CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --force --root "$tools" "$@" "$name@$version"
    fi
}

dependencies() {
    # That of the fuzz targets is apart, and follows ours by `cargo metadata` there; it is wanted half an hour later.
    cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null || return
    tool cargo-deny 0.20.2 || return
    cargo deny --log-level error check bans licenses sources
}

# The C ABI: its header is what its sources say, and its tests pass.
c_abi() {
    tool cbindgen 0.29.4 || return
    ffi/header.sh check && tests/c/header.sh && tests vmtorrent-ffi
}

# The C ABI from C, with sanitizers and under valgrind: the library with its own features alone, as others get it.
c_tests() {
    cargo build -p vmtorrent-ffi --features test-hooks || return
    tests/c/run.sh asan "$target/debug/libvmtorrent_ffi.so" && tests/c/run.sh valgrind "$target/debug/libvmtorrent_ffi.so"
}

# What the library does without the features that may be left out.
without_features() {
    cargo clippy -p vmtorrent-ffi --no-default-features -- -D warnings &&
        cargo test --quiet -p vmtorrent-platform -p vmtorrent --no-default-features --lib without_
}

# Installs the C library as a distribution would, for tests/tests/c_api.rs, and looks at what it exports.
c_library() {
    # The last one that Rust 1.90 builds. It takes four minutes, the first time.
    tool cargo-c 0.10.19 --bin cargo-cinstall || return
    rm -rf "$prefix"
    cargo cinstall --locked --profile quick -p vmtorrent-ffi --prefix "$prefix" --libdir "$prefix/lib" &&
        ffi/symbols.sh "$prefix/lib/libvmtorrent.so"
}

# With the binary at hand: `make demo` builds the one that users get, which takes minutes.
demo() {
    tests/demo/demo.py --binary "$target/debug/vmtorrent"
}

case ${1:-} in
check)
    stage fmt cargo fmt --all --check
    stage clippy cargo clippy --workspace --all-targets -- -D warnings
    stage "unit tests" tests vmtorrent-platform vmtorrent vmtorrent-cli -- --lib --bins
    ;;
test)
    stage fmt cargo fmt --all --check
    stage clippy cargo clippy --workspace --all-targets -- -D warnings
    stage documentation documentation
    stage dependencies dependencies
    stage build build
    stage "tests of the crates" tests vmtorrent-platform vmtorrent vmtorrent-cli
    stage "simulated crowds" tests vmtorrent-sim
    stage "C ABI" c_abi
    stage "C tests" c_tests
    stage "examples in the documentation" cargo test --doc "${all[@]}"
    stage "without features" without_features
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
    stage "C ABI with AddressSanitizer in Rust" ffi/sanitize.sh
    stage "Python package" bindings/python/test.sh
    ;;
*)
    echo "use: $0 check|test" >&2
    exit 2
    ;;
esac
summary
exit $failed
