#!/bin/sh
# Builds the shared library in each variant, strips it, and prints what it weighs and of what that is made: the tables of
# docs/c-api.md. Takes minutes for each variant; the library may weigh 12 MiB at most.
#
#   ffi/weight.sh [small]      with `small` also the variant that is built for size
#
# CARGO_TARGET_DIR says where to build.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
most=$((12 << 20))
target=${CARGO_TARGET_DIR:-target}
library=$target/release/libvmtorrent_ffi.so
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mib() {
    awk -v n="$1" 'BEGIN { printf "%.2f", n / 1048576 }'
}

# Bytes of the stripped library, built with these arguments of cargo.
weigh() {
    cargo build --quiet --release -p vmtorrent-ffi "$@" >&2
    strip -o "$scratch/stripped.so" "$library"
    wc -c <"$scratch/stripped.so"
}

# What vendors may leave out.
features=$(sed -n '/^\[features\]/,/^\[[^f]/s/^\([a-z][a-z-]*\) *=.*/\1/p' ffi/Cargo.toml | grep -Evx 'default|capi|test-hooks' || true)

whole=$(weigh)
cp "$library" "$scratch/whole.so"
echo "| variant | MiB, stripped | adds |"
echo "|---|---|---|"
echo "| as released | $(mib "$whole") | |"
if [ -n "$features" ]; then
    none=$(weigh --no-default-features)
    echo "| without any feature | $(mib "$none") | |"
    for feature in $features; do
        with=$(weigh --no-default-features --features "$feature")
        echo "| feature \`$feature\` alone | $(mib "$with") | $(mib $((with - none))) |"
    done
fi
if [ "${1:-}" = small ]; then
    export CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_OPT_LEVEL=s
    small=$(weigh)
    echo "| built for size (\`lto = \"fat\"\`, \`codegen-units = 1\`, \`opt-level = \"s\"\`) | $(mib "$small") | |"
fi

# By the names of its functions and constants; generic code counts for the crate that it is of.
echo
echo "| part | MiB |"
echo "|---|---|"
nm --demangle --defined-only --print-size "$scratch/whole.so" | python3 -c '
import re, sys

PARTS = (
    ("ours: the interface", "vmtorrent_ffi vmt_"),
    ("ours: the engine", "vmtorrent vmtorrent_platform"),
    ("TLS and its certificates", "ring ring_core rustls webpki rustls_platform_verifier rustls_native_certs rustls_pki_types tokio_rustls hyper_rustls untrusted openssl_probe"),
    ("HTTP", "reqwest hyper hyper_util h2 http http_body http_body_util httparse tower tower_http tower_service"),
    ("URLs and names", "url idna icu_normalizer icu_properties icu_collections icu_provider icu_locale_core icu_normalizer_data icu_properties_data percent_encoding form_urlencoded zerovec zerotrie utf8_iter"),
    ("FUSE", "fuser"),
    ("tokio", "tokio tokio_util mio socket2 futures_util futures_core futures_channel"),
    ("profiles as text", "serde serde_core serde_json itoa ryu zmij"),
    ("log", "tracing tracing_core tracing_subscriber sharded_slab thread_local matchers"),
    ("the standard library", "core alloc std hashbrown gimli addr2line object miniz_oxide rustc_demangle compiler_builtins rust"),
)
PART = {crate: part for part, crates in PARTS for crate in crates.split()}
sizes = {}
for line in sys.stdin:
    # What has no size is counted elsewhere, and what is zeros takes no room in the file.
    symbol = re.match(r"[0-9a-f]{16} ([0-9a-f]{16}) ([^bB]) (.*)", line)
    if not symbol:
        continue
    size, name = int(symbol[1], 16), symbol[3]
    if name.startswith("vmt_"):
        crate = "vmt_"
    elif re.match(r"_?ring_core|(aes|sha|x25519|ecp_|p256|p384|bn_|gcm|ghash|chacha|poly|ChaCha|fiat|k25|vpaes|bsaes)", name):
        crate = "ring"
    else:
        # `<a::T as b::U>::f` is of a, unless a is the standard library.
        crates = re.findall(r"(?<![\w:])([a-z_][a-z0-9_]*)::", name)
        others = [c for c in crates if c not in ("core", "alloc", "std")]
        crate = (others or crates or ["?"])[0]
    part = PART.get(crate, "other crates, and what has no name")
    sizes[part] = sizes.get(part, 0) + size
for part, size in sorted(sizes.items(), key=lambda x: -x[1]):
    print(f"| {part} | {size / 1048576:.2f} |")
print(f"| tables for unwinding and loading | {max(int(sys.argv[1]) - sum(sizes.values()), 0) / 1048576:.2f} |")
' "$whole"

if [ "$whole" -gt $most ]; then
    echo "weight.sh: $(mib "$whole") MiB are more than $(mib $most)" >&2
    exit 1
fi
