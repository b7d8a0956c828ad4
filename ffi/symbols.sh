#!/bin/sh
# Compares what a shared library exports with ffi/symbols.txt, and looks at what it needs: nothing beyond the C library.
#
#   ffi/symbols.sh libvmtorrent.so
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
library=${1:?usage: ffi/symbols.sh LIBRARY}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

nm -D --defined-only "$library" | awk '{ sub(/@.*/, "", $NF); print $NF }' | sort >"$scratch/exported"
if ! diff -u "$root/ffi/symbols.txt" "$scratch/exported"; then
    echo "symbols.sh: $library does not export what ffi/symbols.txt lists" >&2
    exit 1
fi
# libgcc_s unwinds the stack after a panic; libm is a part of the C library.
needed=$(objdump -p "$library" | awk '$1 == "NEEDED" { print $2 }')
for name in $needed; do
    case $name in
    libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | libgcc_s.so.* | ld-linux*.so.*) ;;
    *)
        echo "symbols.sh: $library needs $name" >&2
        exit 1
        ;;
    esac
done
echo "$library: $(wc -l <"$root/ffi/symbols.txt") symbols, needs $(echo "$needed" | tr '\n' ' ')"
