#!/bin/bash
# Tests the Python package as users get it: `pip install .` in a fresh environment, the abi3 wheel on each CPython from 3.10
# to 3.13 that is here, types, docstrings, notebook. Environments are kept in the target directory.
# Use: test.sh [PYTEST-OPTION...]
# A Python that is not here is named at the end; VMTORRENT_REQUIRE=1 makes a skipped test a failure.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
target=${CARGO_TARGET_DIR:-$here/../../target}
mkdir -p "$target/python"
target=$(cd "$target" && pwd)
work=$target/python
export CARGO_TARGET_DIR=$target PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
export VMTORRENT_DEMO_DIR=${VMTORRENT_DEMO_DIR:-$here/../../.demo}
# What the other stages have compiled is taken.
export MATURIN_PEP517_ARGS="--profile dev"
versions=(3.10 3.11 3.12 3.13)

step() { printf -- '--- %s (%d s)\n' "$*" $SECONDS; }

# Prints a Python of that version that has venv.
find_python() {
    local candidate
    for candidate in "$(command -v "python$1" || true)" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python3 "$(command -v python3)"; do
        [ -x "$candidate" ] || continue
        if "$candidate" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# An environment with what a file lists; made anew when the file or the Python changes.
# Use: environment NAME PYTHON REQUIREMENTS
environment() {
    local stamp directory=$work/$1
    stamp=$("$2" -c 'import sys; print(sys.version, sys.base_prefix)' && cat requirements-*.txt)
    if [ ! -e "$directory/stamp" ] || [ "$(cat "$directory/stamp")" != "$stamp" ]; then
        rm -rf "$directory"
        "$2" -m venv "$directory"
        "$directory/bin/pip" install --quiet --requirement "$3"
        printf '%s\n' "$stamp" >"$directory/stamp"
    fi
}

main=
for version in 3.11 3.12 3.13 3.10; do
    main=$(find_python $version)
    [ -z "$main" ] || break
done
[ -n "$main" ] || { echo "test.sh: no CPython from 3.10 to 3.13 with venv is here: install python3 and python3-venv" >&2; exit 1; }

step "tools, on $("$main" --version)"
environment check "$main" requirements-check.txt
bin=$work/check/bin

step "pip install . in a fresh environment"
rm -rf "$work/fresh" "$work/wheels"
"$main" -m venv "$work/fresh"
"$work/fresh/bin/pip" install --quiet "$here"
(cd / && "$work/fresh/bin/python" -c 'import vmtorrent; print("vmtorrent", vmtorrent.__version__)')

step "the abi3 wheel"
"$bin/maturin" build --quiet --profile dev --out "$work/wheels"
wheel=$(echo "$work"/wheels/vmtorrent-*-cp310-abi3-*.whl)
[ -e "$wheel" ] || { echo "test.sh: no abi3 wheel for CPython 3.10 was built: $(ls "$work/wheels")" >&2; exit 1; }
"$bin/abi3audit" --strict "$wheel"
"$bin/pip" install --quiet --force-reinstall --no-deps "$wheel"

step "types"
"$bin/python" -m mypy.stubtest vmtorrent --mypy-config-file pyproject.toml
"$bin/pyright" --pythonpath "$bin/python"
"$bin/pyright" --pythonpath "$bin/python" --verifytypes vmtorrent --ignoreexternal

step "examples in the docstrings"
installed=$(cd / && "$bin/python" -c 'import pathlib, vmtorrent; print(pathlib.Path(vmtorrent.__file__).parent)')
(cd "$work" && "$bin/python" -m pytest --quiet -p no:cacheprovider -c "$here/pyproject.toml" --rootdir "$installed" \
    --doctest-modules -o doctest_optionflags="IGNORE_EXCEPTION_DETAIL ELLIPSIS" "$installed")

step "tests on $("$main" --version)"
"$bin/python" -m pytest --quiet -p no:cacheprovider "$@"

tested=("$("$main" --version)")
absent=()
for version in "${versions[@]}"; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        absent+=("$version")
        continue
    fi
    [ "$python" != "$main" ] || continue
    step "tests on $("$python" --version)"
    environment "$version" "$python" requirements-test.txt
    "$work/$version/bin/pip" install --quiet --force-reinstall --no-deps "$wheel"
    # The boot and what needs extras were tested above.
    "$work/$version/bin/python" -m pytest --quiet -p no:cacheprovider -m "not boot and not extras" "$@"
    tested+=("$("$python" --version)")
done
step "done"
printf 'tested on: %s\n' "$(IFS=,; echo "${tested[*]}")"
[ ${#absent[@]} = 0 ] || printf 'NOT tested, since they are not here: CPython %s\n' "${absent[*]}"
