#!/bin/sh
# Writes include/vmtorrent.h, or with `check` compares it with what it would write, and compiles it alone.
#
#   ffi/header.sh [check]
#
# CBINDGEN names the program; its version is pinned, since each writes a little differently:
#   cargo install cbindgen --locked --version 0.29.4
set -eu

version=0.29.4
cbindgen=${CBINDGEN:-cbindgen}
root=$(cd "$(dirname "$0")/.." && pwd)
header=$root/include/vmtorrent.h

found=$("$cbindgen" --version 2>/dev/null || echo none)
if [ "$found" != "cbindgen $version" ]; then
    echo "header.sh: cbindgen $version is needed, not: $found" >&2
    echo "    cargo install cbindgen --locked --version $version" >&2
    exit 2
fi

write() {
    "$cbindgen" -q --config "$root/ffi/cbindgen.toml" "$root/ffi" -o "$1"
}

case ${1:-write} in
write)
    mkdir -p "$root/include"
    write "$header"
    ;;
check)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    write "$scratch/vmtorrent.h"
    if ! diff -u "$header" "$scratch/vmtorrent.h"; then
        echo "header.sh: include/vmtorrent.h is not what ffi/src says: run ffi/header.sh" >&2
        exit 1
    fi
    echo '#include "vmtorrent.h"' >"$scratch/alone.c"
    cp "$scratch/alone.c" "$scratch/alone.cpp"
    warnings='-Wall -Wextra -pedantic -Werror -fsyntax-only'
    for standard in c99 c11; do
        # shellcheck disable=SC2086
        ${CC:-cc} -std=$standard $warnings -I"$root/include" "$scratch/alone.c"
    done
    # shellcheck disable=SC2086
    ${CXX:-c++} -std=c++11 $warnings -I"$root/include" "$scratch/alone.cpp"
    # What the header declares is what symbols.txt lists.
    sed -n 's/^[a-z].*[ *]\(vmt_[a-z_]*\)(.*/\1/p' "$header" | sort >"$scratch/declared"
    diff -u "$root/ffi/symbols.txt" "$scratch/declared"
    echo "include/vmtorrent.h: as generated, and good as C99, C11 and C++11"
    ;;
*)
    echo "usage: ffi/header.sh [check]" >&2
    exit 2
    ;;
esac
