#!/bin/sh
# Stands for the programs of VMMs that can't run in the tests. It is called by their names, notes each call with its
# words, and plays a machine that is made, runs until it is turned off, and is removed.
#   FAKE_DIR   where it keeps what it notes
#   FAKE_FAIL  patterns of calls that fail, as the shell's `case` takes them, parted by spaces
#   FAKE_BUSY  how often removing a machine fails before it succeeds
#   FAKE_ORIGINAL  what the disk has to hold; compared by qemu-img through what is attached
#   FAKE_DEAF  anything: the running machine ignores SIGTERM and the power button
set -u
name=${0##*/}
# One line a call; the words are parted by a character that no word holds.
{
    printf '%s' "$name"
    for word; do printf '\037%s' "$word"; done
    printf '\n'
} >> "$FAKE_DIR/calls"
set -f
for pattern in ${FAKE_FAIL:-}; do
    case "$name $*" in
    $pattern) echo "$name refuses this" >&2; exit 1 ;;
    esac
done
set +f

# Runs as a machine does.
machine() {
    [ -z "${FAKE_DEAF:-}" ] || trap '' TERM
    echo "fake machine runs"
    touch "$FAKE_DIR/running"
    until [ -e "$FAKE_DIR/off" ]; do sleep 0.02; done
    rm -f "$FAKE_DIR/running"
    exit 0
}

# Reads the disk as the VMM would: through the descriptor.
compare() {
    [ -z "${FAKE_ORIGINAL:-}" ] || qemu-img compare -f vmdk -F raw "$1" "$FAKE_ORIGINAL" > "$FAKE_DIR/compared" 2>&1
}

button() {
    [ -n "${FAKE_DEAF:-}" ] || touch "$FAKE_DIR/off"
}

turn_off() {
    [ -e "$FAKE_DIR/running" ] || { echo "the machine does not run" >&2; exit 1; }
    touch "$FAKE_DIR/off"
    rm -f "$FAKE_DIR/running"
}

remove() {
    left=$(cat "$FAKE_DIR/busy" 2>/dev/null || echo "${FAKE_BUSY:-0}")
    if [ "$left" -gt 0 ]; then
        echo $((left - 1)) > "$FAKE_DIR/busy"
        echo "the machine is locked" >&2
        exit 1
    fi
}

case "$name $*" in
"VBoxManage storageattach "*)
    for medium; do :; done
    cp "$medium" "$FAKE_DIR/medium"
    compare "$medium"
    ;;
"VBoxHeadless "*) machine ;;
"VBoxManage controlvm "*" acpipowerbutton") button ;;
"VBoxManage controlvm "*" poweroff") turn_off ;;
"VBoxManage unregistervm "*) remove ;;
"vmplayer "*)
    cp "$1" "$FAKE_DIR/machine.vmx"
    cp "${1%/*}/disk.vmdk" "$FAKE_DIR/medium"
    compare "${1%/*}/disk.vmdk"
    machine
    ;;
"vmrun "*" soft") button ;;
"vmrun "*" hard") turn_off ;;
"cloud-hypervisor "*) machine ;;
"ch-remote "*) button ;;
"powershell.exe "*Start-VM*) machine ;;
"powershell.exe "*"-TurnOff"*) [ ! -e "$FAKE_DIR/running" ] || turn_off ;;
"powershell.exe "*Stop-VM*) button ;;
"powershell.exe "*Remove-VM*) remove ;;
esac
