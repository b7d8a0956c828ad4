#!/bin/bash
# Builds the C ABI, and all Rust code that it is made of, with AddressSanitizer, and runs its tests: those in Rust, and those in
# C against the shared library, where the sanitizer then sees both sides of the border. Before, a mistake made on purpose in
# Rust has to be caught, or nothing that follows would prove anything.
#
#   ffi/sanitize.sh [rust|c]       one of both alone
#
# The sanitizer is an unstable option of rustc, which RUSTC_BOOTSTRAP=1 opens in any toolchain; what it needs at run time comes
# with the toolchains that rustup installs. Where it is absent nothing is tested, which with VMTORRENT_REQUIRE=1 is a failure.
# The standard library is as it is delivered: not instrumented, but its heap is the sanitizer's.
# CARGO_TARGET_DIR says where to build: in its directory `sanitize`.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit
triple=$(rustc -vV | sed -n 's/^host: //p')
part=${1:-all}
case $part in
all | rust | c) ;;
*)
    echo "usage: ffi/sanitize.sh [rust|c]" >&2
    exit 2
    ;;
esac

runtime=$(find "$(rustc --print sysroot)/lib/rustlib/$triple/lib" -name 'librustc-*_rt.asan.a' 2>/dev/null | head -n 1)
if [ -z "$runtime" ]; then
    echo "skipped: $(rustc --version) has no AddressSanitizer runtime for $triple: install a toolchain with rustup" >&2
    [ "${VMTORRENT_REQUIRE:-}" != 1 ]
    exit
fi

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/sanitize" || exit
target=$(cd "$target/sanitize" && pwd)
export CARGO_TARGET_DIR=$target RUSTC_BOOTSTRAP=1 CARGO_INCREMENTAL=0
# The profile `quick` is built soonest; reports name lines.
export CARGO_PROFILE_QUICK_DEBUG=line-tables-only
export RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers=yes"
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:exitcode=99
build=(--profile quick --locked -p vmtorrent-ffi --features test-hooks --target "$triple")

# The sanitizer is on in Rust code: it ends a test that reads what was freed.
must_fail() {
    local output status
    output=$(cargo test --quiet "${build[@]}" --test must_fail -- --ignored --exact "$1" 2>&1)
    status=$?
    if [ $status = 0 ] || ! grep -qE "ERROR: (Address|Leak)Sanitizer: $2" <<<"$output"; then
        echo "$output"
        echo "sanitize.sh: $1 was not caught as $2 (status $status)" >&2
        return 1
    fi
    echo "$1: caught as $2"
}

if [ "$part" != c ]; then
    must_fail reads_what_was_freed heap-use-after-free || exit
    must_fail reads_behind_the_end heap-buffer-overflow || exit
    must_fail forgets_memory 'detected memory leaks' || exit
    # Not loom.rs: its threads are stacks that it switches, which the sanitizer does not follow.
    cargo test --quiet "${build[@]}" --lib --test abi --test allocations || exit
fi
if [ "$part" != rust ]; then
    cargo build --quiet "${build[@]}" || exit
    # rustc leaves the runtime of a shared library to the program that loads it: here it is the compiler's of the C tests.
    library=$target/$triple/quick/libvmtorrent_ffi.so
    if ! nm -D --undefined-only "$library" | grep ' __asan_report_load8$' >/dev/null; then
        echo "sanitize.sh: $library is not instrumented" >&2
        exit 1
    fi
    tests/c/run.sh rust "$library" || exit
fi
