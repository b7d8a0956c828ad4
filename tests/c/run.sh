#!/bin/bash
# Builds each test of the C ABI against include/vmtorrent.h and a shared library, and runs it.
#
#   tests/c/run.sh [asan|rust|valgrind] LIBRARY [TEST...]
#
# asan: the tests run with AddressSanitizer (leaks too) and UndefinedBehaviorSanitizer; the library is as it is, but shares the
# heap with them. rust: the same with a library that is built with AddressSanitizer too, as ffi/sanitize.sh does it. valgrind:
# the tests are built plainly and everything runs under memcheck. Before, mistakes made on purpose (must_fail_*.c) have to be
# caught, or nothing that follows would prove anything.
# LIBRARY has the feature `test-hooks`. A test ends with 0, or 77 when the machine can't do what it needs: then it is skipped,
# which with VMTORRENT_REQUIRE=1 is a failure. JOBS: tests at a time.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
usage="usage: tests/c/run.sh [asan|rust|valgrind] LIBRARY [TEST...]"

# One test, in the environment that is made below: writes its line, and its result.
if [ "${1:-}" = --one ]; then
    name=$2
    source=$here/$name.c
    program=$SCRATCH/$name
    output=$SCRATCH/$name.output
    # Nothing outside is read or written, nor what another test keeps of the same image.
    export HOME=$SCRATCH/home/$name
    export XDG_CACHE_HOME=$HOME/cache XDG_STATE_HOME=$HOME/state
    mkdir -p "$HOME"
    begin=$(date +%s%N)
    # shellcheck disable=SC2086
    parts="$SCRATCH/support.o $LINK"
    ! grep -q '^/\* standalone: ' "$source" || parts=-ldl
    # shellcheck disable=SC2086
    if ! ${CC:-gcc} $FLAGS -o "$program" "$source" $parts >"$output" 2>&1; then
        status=build
    else
        if grep -q '^ \* leaks: ' "$source"; then
            export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0
            RUNNER="$RUNNER ${RUNNER:+--leak-check=no}"
        fi
        # shellcheck disable=SC2086
        timeout -k 5 "$LIMIT" $RUNNER "$program" >"$output" 2>&1
        status=$?
    fi
    took=$((($(date +%s%N) - begin) / 1000000))
    expected=0
    case $name in
    must_fail_*)
        # It has to be the checker that says so, in these words.
        expected=99
        if [ $status = 99 ] && ! grep -q -E "$(sed -n "s/^.* $MODE: //p" "$source")" "$output"; then
            status="99, for another reason"
        fi
        ;;
    esac
    if [ "$status" = "$expected" ]; then
        result=passed
    elif [ "$status" = 77 ]; then
        result=skipped
    else
        result=failed
    fi
    line=$(printf '%-34s %-7s %6d ms' "$name" $result $took)
    case $result in
    passed) echo "$line" ;;
    skipped) echo "$line  $(grep -m 1 '^skipped: ' "$output" | cut -d' ' -f2-)" ;;
    failed)
        [ "$status" != 124 ] || status="124: not done within $LIMIT s"
        # What the test says comes first; a checker says much more when a test did not come to its end.
        said=$(grep -v -E '^==[0-9]+==' "$output" | head -n "${LINES_OF_FAILURE:-60}" | sed 's/^/    /')
        checked=$(grep -E '^==[0-9]+==' "$output" | head -n "${LINES_OF_FAILURE:-60}" | sed 's/^/    /')
        {
            echo "$line  (status $status)"
            [ -z "$said" ] || echo "$said"
            [ -z "$checked" ] || echo "$checked"
        } | tee "$SCRATCH/$name.failure"
        ;;
    esac
    echo $result >"$SCRATCH/$name.result"
    exit 0
fi

MODE=asan
case ${1:-} in
asan | rust | valgrind) MODE=$1 && shift ;;
esac
library=${1:?$usage}
shift
SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/vmt-c-XXXXXX")
cleanup() {
    # What a test that was killed left mounted.
    left=$(awk -v under="$SCRATCH/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r)
    for mount in $left; do
        echo "left mounted: $mount"
        umount -l "$mount"
    done
    rm -rf --one-file-system "$SCRATCH"
}
trap cleanup EXIT

FLAGS="-std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -pedantic -g -pthread -I$root/include -I$here"
RUNNER=
ASAN_OPTIONS=
LIMIT=120
mkdir -p "$SCRATCH/lib" "$SCRATCH/tmp"
case $MODE in
asan | rust)
    FLAGS="$FLAGS -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
    cp "$library" "$SCRATCH/lib/libvmtorrent.so"
    ASAN_OPTIONS=detect_leaks=1:exitcode=99:detect_stack_use_after_return=1:strict_string_checks=1
    export UBSAN_OPTIONS=print_stacktrace=1:exitcode=99
    export LSAN_OPTIONS=report_objects=1
    ;;
valgrind)
    FLAGS="$FLAGS -O1"
    # It reads the symbols alone much faster than all of what a debugger wants.
    objcopy --strip-debug "$library" "$SCRATCH/lib/libvmtorrent.so"
    RUNNER="valgrind -q --vgdb=no --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect,possible"
    RUNNER="$RUNNER --errors-for-leak-kinds=definite,indirect,possible --num-callers=25 --child-silent-after-fork=yes"
    RUNNER="$RUNNER --fair-sched=yes --suppressions=$here/valgrind.supp"
    LIMIT=240
    export VMT_TEST_SLOW=1
    ;;
esac
LINK="-L$SCRATCH/lib -lvmtorrent -ldl -Wl,-rpath,$SCRATCH/lib"
# A debug build has no soname of its own: the tests find it by the name of the file.
export ASAN_OPTIONS MODE SCRATCH FLAGS RUNNER LIMIT LINK
export VMT_TEST_LIBRARY=$SCRATCH/lib/libvmtorrent.so TMPDIR=$SCRATCH/tmp
# shellcheck disable=SC2086
${CC:-gcc} $FLAGS -c -o "$SCRATCH/support.o" "$here/support.c" || exit 1

if [ $# -gt 0 ]; then
    names=("$@")
else
    names=()
    # Those that have to fail come first.
    for source in "$here"/must_fail_*.c "$here"/*.c; do
        name=$(basename "$source" .c)
        [ "$name" != support ] || continue
        # What another mode is meant to catch.
        case $name in must_fail_*) grep -q " $MODE: " "$source" || continue ;; esac
        case " ${names[*]} " in *" $name "*) ;; *) names+=("$name") ;; esac
    done
fi
printf '%s\n' "${names[@]}" | xargs -n 1 -P "${JOBS:-$(nproc)}" "$here/run.sh" --one

passed=0 failed=0 skipped=0
for name in "${names[@]}"; do
    case $(cat "$SCRATCH/$name.result" 2>/dev/null) in
    passed) passed=$((passed + 1)) ;;
    skipped) skipped=$((skipped + 1)) ;;
    *) failed=$((failed + 1)) ;;
    esac
done
left=$(awk -v under="$SCRATCH/" 'index($2, under) == 1' /proc/mounts)
if [ -n "$left" ]; then
    echo "mounts were left behind"
    failed=$((failed + 1))
fi
[ $skipped = 0 ] || echo "$skipped skipped"
# Once more where nobody has to look for it.
cat "$SCRATCH"/*.failure 2>/dev/null
echo "$passed passed, $failed failed"
[ $failed = 0 ]
