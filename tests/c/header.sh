#!/bin/sh
# Compiles include/vmtorrent.h alone, as C99, C11 and C++11, with each compiler that there is; gcc and g++ have to be.
#
#   tests/c/header.sh
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Twice, as it happens to be included; and used, so that what it declares is looked at.
cat >"$scratch/alone.c" <<'END'
#include "vmtorrent.h"
#include "vmtorrent.h"

int use(void);

int use(void) {
    vmt_stats stats;
    vmt_error *error = 0;
    vmt_options *options = 0;
    stats.struct_size = sizeof(vmt_stats);
    if (vmt_options_new(&options, &error) != VMT_OK) {
        vmt_error_free(error);
    }
    vmt_options_free(options);
    return VMT_ABI_VERSION == vmt_abi_version() ? (int)(stats.struct_size % 8) : VMT_E_IO;
}
END
cp "$scratch/alone.c" "$scratch/alone.cpp"
# The header alone is what may not warn; all declarations of it are prototypes.
warnings="-Wall -Wextra -pedantic -Werror -fsyntax-only -I$root/include"
count=0

compile() {
    # shellcheck disable=SC2086
    "$@" $warnings
    count=$((count + 1))
}

for compiler in gcc clang; do
    if ! command -v $compiler >/dev/null; then
        [ $compiler != gcc ] || { echo "header.sh: there is no gcc" >&2; exit 1; }
        continue
    fi
    for standard in c99 c11; do
        compile $compiler -std=$standard -Wstrict-prototypes -Wmissing-prototypes "$scratch/alone.c"
    done
done
for compiler in g++ clang++; do
    if ! command -v $compiler >/dev/null; then
        [ $compiler != g++ ] || { echo "header.sh: there is no g++" >&2; exit 1; }
        continue
    fi
    for standard in c++11 c++17; do
        compile $compiler -std=$standard "$scratch/alone.cpp"
    done
done
echo "include/vmtorrent.h compiles alone, in $count ways"
