#!/usr/bin/env bash
# Makes .venv with the packages of requirements.lock and this project itself; does nothing where that is done already.
# The stamp is written last, so an interrupted installation is started again from nothing.
# Called by the Makefile. PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/installed
unfinished=$venv/unfinished
key=$(cat pyproject.toml requirements.lock <(pwd) | cksum)

die() { echo "set-up: $*" >&2; exit 1; }

# Prints 311 for Python 3.11; nothing where the command does not run.
version() { "$1" -c 'import sys; print(sys.version_info[0] * 100 + sys.version_info[1])' 2>/dev/null || true; }
suitable() { [[ $1 =~ ^[0-9]+$ ]] && (($1 >= 311 && $1 <= 314)); }   # the versions the lock has packages for

newest_python() {
    local best="" best_version=0 candidate found
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        found=$(version "$candidate")
        if suitable "$found" && ((found > best_version)); then best=$candidate best_version=$found; fi
    done
    [[ $best ]] || die "no Python 3.11 to 3.14 found (looked for: ${PYTHON:-python3, python3.14 … python3.11});" \
        "install one, or name it: make PYTHON=/path/to/python3.12"
    echo "$best"
}

# Debian and Ubuntu keep what `python -m venv` needs in a package of its own.
ensure_venv_module() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    local package sudo=()
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    command -v apt-get >/dev/null || die "$1 cannot make virtual environments (no ensurepip): install a complete Python"
    if [[ $(id -u) != 0 ]]; then
        sudo -n true 2>/dev/null || die "$1 needs one more package; type: sudo apt-get install -y $package"
        sudo=(sudo -n)
    fi
    echo "set-up: installing $package"
    "${sudo[@]}" apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$package" >/dev/null \
        || die "could not install $package; type: sudo apt-get install -y $package"
}

# pip with a line now and then in place of several hundred; everything it says is kept in .venv/pip.log.
pip_install() {
    local line count=0
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
        --log "$venv/pip.log" "$@" 2> >(grep -v '^ *WARNING' >&2) |
        while IFS= read -r line; do
            case $line in
            Collecting* | Processing*) count=$((count + 1)); ((count % 25)) || echo "set-up:   $count packages found" ;;
            *Downloading*"("*[0-9][0-9][0-9].[0-9]" MB)"*) echo "set-up: ${line/#  Downloading/  downloading}" ;;
            "Installing collected packages"*) echo "set-up:   unpacking" ;;
            esac
        done || die "pip failed (see above, all of it in $venv/pip.log); the same command starts again"
}

if [[ -x $venv/bin/python && -f $stamp && $(<"$stamp") == "$key" ]] && "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

if [[ -e $unfinished ]] || ! { [[ -x $venv/bin/python ]] && suitable "$(version "$venv/bin/python")"; }; then
    python=$(newest_python)
    ensure_venv_module "$python"
    rm -rf "$venv"
    echo "set-up: making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi
rm -f "$stamp"
touch "$unfinished"
start=$SECONDS
echo "set-up: installing requirements.lock; the first time this downloads several GB and takes some minutes"
pip_install -r requirements.lock
pip_install -q --no-deps --no-build-isolation --editable .
rm "$unfinished"
echo "$key" >"$stamp"
echo "set-up: done in $((SECONDS - start)) s"
