#!/bin/bash
# Runs a fuzz target over its corpus and what comes of it. Use: fuzz/run.sh TARGET [SECONDS]
# The same minute each time, so that it fails for a change only; FUZZ_SEED=0 takes another way each time.
# What libFuzzer needs of the compiler are options of LLVM, so that a stable one does.
set -euo pipefail
cd "$(dirname "$0")"
target=$1 seconds=${2:-60}
directory=$(cd .. && mkdir -p "${CARGO_TARGET_DIR:-target}/fuzz" && cd "${CARGO_TARGET_DIR:-target}/fuzz" && pwd)
passes="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
# With --target, so that build scripts are built without them.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="$passes --cfg fuzzing" CARGO_TARGET_DIR=$directory cargo build --release --locked --target "$host" --bin "$target"
# What is found is kept beside the build; the corpus in the repository is only read.
mkdir -p "$directory/found/$target"
"$directory/$host/release/$target" -seed="${FUZZ_SEED:-1}" -max_total_time="$seconds" -max_len=20000 -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="$directory/" "$directory/found/$target" "corpus/$target" 2>&1 | tail -20
