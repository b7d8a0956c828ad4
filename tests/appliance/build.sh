#!/bin/bash
# Makes an appliance: a raw disk image (MBR, extlinux, ext4) with Debian bookworm, its cloud kernel and systemd.
# Use: build.sh OUT_DIR [VARIANT], where VARIANT is one of
#   demo     (the default) nginx; the image is OUT_DIR/appliance.img
#   develop  a database, a compiler and git; the image is OUT_DIR/develop.img
# What the guest does stands in guest/VARIANT. An image that this recipe made before is kept. Needs root: debootstrap
# and a loop device.
set -euo pipefail

suite=bookworm
offset=$((1 << 20))
# Fixed, so that two runs over the same packages differ as little as possible.
uuid=5d6b0b6e-7c1f-4c53-9a51-0f6f5e0a9d10
epoch=1700000000
packages=systemd,systemd-sysv,udev,linux-image-cloud-amd64,initramfs-tools,zstd,procps

say() { echo "appliance: $*" >&2; }
die() { say "$*"; exit 1; }

[ $# -eq 1 ] || [ $# -eq 2 ] || die "use: $0 OUT_DIR [VARIANT]"
variant=${2:-demo}
case $variant in
demo)
    name=appliance size_mib=1024
    packages+=,nginx,curl
    ;;
develop)
    name=develop size_mib=2048
    packages+=,sqlite3,gcc,libc6-dev,git
    ;;
*) die "no variant $variant: there are demo and develop" ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
image=$out/$name.img
made=$out/$variant.recipe
log=$out/$variant.debootstrap.log
recipe=$(cd "$here" && cat build.sh "guest/$variant"/* | sha256sum | cut -d' ' -f1)

exec 9>"$out/lock"
flock 9
if [ -f "$image" ] && [ "$(cat "$made" 2>/dev/null)" = "$recipe" ]; then
    say "kept $image"
    exit 0
fi

[ "$(id -u)" = 0 ] || die "needs root for debootstrap and mount: run it as root"
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C
for tool in debootstrap mkfs.ext4 extlinux mount; do
    command -v "$tool" >/dev/null ||
        die "$tool is missing: apt-get install debootstrap e2fsprogs extlinux mount"
done
mbr=/usr/lib/EXTLINUX/mbr.bin
[ -f $mbr ] || die "$mbr is missing: apt-get install extlinux"

work=$out/work.$$
# Removes a work directory with whatever is mounted in it. The loop device goes with its mount.
remove() {
    local mounts
    mounts=$(awk -v dir="$1/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r)
    [ -z "$mounts" ] || xargs -d '\n' umount -l <<<"$mounts" || true
    rm -rf --one-file-system "$1"
}
trap 'remove "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# What a run that was killed has left; the lock says that nobody uses it.
for old in "$out"/work.*; do
    [ ! -e "$old" ] || remove "$old"
done
mkdir -p "$work/mnt" "$out/debs"

# The machine's own mirror, key and proxy, as apt has them.
mirror=http://deb.debian.org/debian
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if command -v apt-get >/dev/null; then
    # shellcheck disable=SC2016  # apt's own placeholders
    targets=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI) $(SIGNED_BY)' 'Created-By: Packages' || true)
    line=$(awk -v s=$suite '$1 == s && $2 == "main" { print; exit }' <<<"$targets")
    [ -n "$line" ] || line=$(awk '$2 == "main" && $3 ~ /\/debian\/?$/ { print; exit }' <<<"$targets")
    if [ -n "$line" ]; then
        read -r _ _ uri key <<<"$line"
        mirror=$uri
        [ ! -f "${key:-}" ] || keyring=$key
    fi
    if [ -z "${http_proxy:-}" ]; then
        eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
        [ -z "${http_proxy:-}" ] || [ "$http_proxy" = DIRECT ] || export http_proxy
    fi
fi
[ -f "$keyring" ] || die "$keyring is missing: apt-get install debian-archive-keyring"

say "debootstrap $suite from $mirror"
root=$work/root
debootstrap --variant=minbase --arch=amd64 --keyring="$keyring" --cache-dir="$out/debs" \
    --include="$packages" "$suite" "$root" "$mirror" >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; die "debootstrap failed: see $log"; }

say "setting up"
echo "$variant" >"$root/etc/hostname"
echo "127.0.0.1 localhost $variant" >"$root/etc/hosts"
echo "UUID=$uuid / ext4 defaults 0 0" >"$root/etc/fstab"
echo 6f1b3f0f5a7e4b8c9d2e1a0b3c4d5e6f >"$root/etc/machine-id"
: >"$root/etc/resolv.conf"
guest=$here/guest/$variant
install -D -m 755 "$guest/vmtorrent-$variant" "$root/usr/local/sbin/vmtorrent-$variant"
install -D -m 644 "$guest/$variant.service" "$root/etc/systemd/system/$variant.service"

# Nothing that waits for a person, a network or a clock.
in_root() { chroot "$root" "$@"; }
in_root systemctl enable --quiet "$variant.service"
in_root systemctl mask --quiet getty.target getty-static.service getty@tty1.service serial-getty@ttyS0.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    e2scrub_reap.service systemd-networkd-wait-online.service
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\n' >"$root/etc/systemd/journald.conf.d/demo.conf"

set_up_demo() {
    install -D -m 644 "$guest/page.html" "$root/usr/share/vmtorrent/page.html"
    install -D -m 644 "$guest/page.html" "$root/var/www/html/index.html"
    sed -i 's/^worker_processes .*/worker_processes 1;/' "$root/etc/nginx/nginx.conf"
    in_root systemctl enable --quiet nginx.service
}
set_up_develop() {
    install -D -m 644 -t "$root/srv/develop" "$guest"/*.sql "$guest"/*.c
    install -D -m 755 "$guest/prepare" "$root/srv/develop/prepare"
    in_root /srv/develop/prepare "$epoch" >>"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; die "the work could not be prepared"; }
    rm "$root/srv/develop/prepare"
}
"set_up_$variant"

# The initramfs holds what the root disk needs, no more.
sed -i 's/^MODULES=.*/MODULES=list/; s/^BUSYBOX=.*/BUSYBOX=n/; s/^COMPRESS=.*/COMPRESS=zstd/' \
    "$root/etc/initramfs-tools/initramfs.conf"
printf '%s\n' virtio_pci virtio_blk ext4 >>"$root/etc/initramfs-tools/modules"
kernel=$(basename "$root"/boot/vmlinuz-*)
release=${kernel#vmlinuz-}
in_root update-initramfs -u -k "$release" >>"$log" 2>&1

mkdir -p "$root/boot/extlinux"
cat >"$root/boot/extlinux/extlinux.conf" <<END
serial 0 115200
default demo
prompt 0
timeout 0
label demo
  kernel /boot/vmlinuz-$release
  initrd /boot/initrd.img-$release
  append root=UUID=$uuid ro console=ttyS0,115200 edd=off loglevel=6 rootfstype=ext4
END

rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/info/* \
    "$root"/usr/share/locale/* "$root"/tmp/* "$root"/etc/resolv.conf "$root"/boot/*.old
[ "$variant" != demo ] || mkdir "$root/var/log/nginx"
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"
find "$root" -xdev -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +

say "writing the image"
part=$((size_mib * 1024 * 1024 - offset))
truncate -s "${size_mib}M" "$work/image"
dd if=$mbr of="$work/image" bs=440 count=1 conv=notrunc status=none
# One bootable Linux partition; its addresses are in sectors, the CHS fields say "use them".
le32() { printf '\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
printf '%b' "\\x80\\xfe\\xff\\xff\\x83\\xfe\\xff\\xff$(le32 $((offset / 512)))$(le32 $((part / 512)))" |
    dd of="$work/image" bs=1 seek=446 conv=notrunc status=none
printf '\x55\xaa' | dd of="$work/image" bs=1 seek=510 conv=notrunc status=none
# extlinux reads neither 64-bit block numbers nor checksummed metadata.
E2FSPROGS_FAKE_TIME=$epoch mkfs.ext4 -q -F -b 4096 -m 0 -U $uuid -L demo \
    -O '^64bit,^metadata_csum' -E "offset=$offset,hash_seed=$uuid,lazy_itable_init=0,lazy_journal_init=0" \
    -d "$root" "$work/image" $((part / 4096))
# By offset: the device of a partition would need udev.
mount -t ext4 -o "noatime,loop,offset=$offset,sizelimit=$part" "$work/image" "$work/mnt"
extlinux --install "$work/mnt/boot/extlinux" >>"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; die "extlinux failed"; }
umount "$work/mnt"
fallocate --dig-holes "$work/image"

sync "$work/image"
mv "$work/image" "$image"
echo "$recipe" >"$made"
say "made $image: $size_mib MiB, $(du -m "$image" | cut -f1) MiB of data"
