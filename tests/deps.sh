#!/bin/bash
# Installs what the build, the demo and the tests need and this Debian machine lacks; when not root, says how.
# Use: deps.sh demo|test|bench
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin

have() { command -v "$1" >/dev/null; }
missing=()
need() { have "$1" || missing+=("$2"); }

need cc gcc
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
need python3 python3
need qemu-system-x86_64 qemu-system-x86
need fusermount3 fuse3
need debootstrap debootstrap
need extlinux extlinux
need mkfs.ext4 e2fsprogs
need losetup mount
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
have cargo || missing+=(cargo-web rustc-web)
case ${1:-demo} in
demo) ;;
test)
    need ip iproute2
    # libFuzzer is C++.
    need c++ g++
    # rustup has stand-ins on the path even for what is not installed: only a run tells.
    cargo fmt --version >/dev/null 2>&1 || missing+=(rustfmt-web)
    cargo clippy --version >/dev/null 2>&1 || missing+=(rust-web-clippy)
    need ip iproute2
    need nsenter util-linux
    if ! have opentracker; then
        missing+=(opentracker)
        # The tests start one themselves: the package must not run another as a service.
        unit=/etc/systemd/system/opentracker.service
        [ -e $unit ] || [ "$(id -u)" != 0 ] || { mkdir -p ${unit%/*} && ln -s /dev/null $unit; }
    fi
    /usr/bin/python3 -c 'import libtorrent' 2>/dev/null || missing+=(python3-libtorrent)
    need transmission-daemon transmission-daemon
    need aria2c aria2
    need qbittorrent-nox qbittorrent-nox
    # Web seeds. The tests start one themselves: as a service it would only take port 80.
    if ! have nginx; then
        missing+=(nginx-light)
        unit=/etc/systemd/system/nginx.service
        [ -e $unit ] || [ "$(id -u)" != 0 ] || { mkdir -p ${unit%/*} && ln -s /dev/null $unit; }
    fi
    need openssl openssl
    # The Python package is tested in environments of its own.
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    # The C interface; its tests have sanitizers (libasan comes with gcc).
    need gcc gcc
    need g++ g++
    need valgrind valgrind
    need pkg-config pkg-config
    need objdump binutils
    need nbdkit nbdkit
    [ -e /usr/include/nbdkit-plugin.h ] || missing+=(nbdkit-plugin-dev)
    need nbdcopy libnbd-bin
    need qemu-img qemu-utils
    # For cargo-c.
    [ -e /usr/include/openssl/ssl.h ] || missing+=(libssl-dev)
    ;;
bench)
    need ip iproute2
    need qemu-img qemu-utils
    need fio fio
    # What the boots are measured beside. nginx and sshd are started by the benchmark itself, on the lab's hosts.
    need sshfs sshfs
    need sshd openssh-server
    need nbdkit nbdkit
    need nginx nginx-light
    need btfs btfs
    /usr/bin/python3 -c 'import libtorrent' 2>/dev/null || missing+=(python3-libtorrent)
    ;;
*)
    echo "use: $0 demo|test|bench" >&2
    exit 2
    ;;
esac

if [ ${#missing[@]} -gt 0 ]; then
    if ! have apt-get; then
        echo "deps: this is no Debian; install what these packages hold: ${missing[*]}" >&2
        exit 1
    fi
    if [ "$(id -u)" != 0 ]; then
        echo "deps: run as root: apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    echo "deps: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
found=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
    echo "deps: rustc is $found, $wanted or later is needed: see https://rustup.rs, or Debian's package rustc-web" >&2
    exit 1
fi
