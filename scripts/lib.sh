# Functions for the other scripts: messages, the choice of Python, and the virtual environment.
# shellcheck shell=sh

cd "$(dirname "$0")/.." || exit 1
unset PYTHONDONTWRITEBYTECODE # without compiled files Django starts three times as slowly
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

is_ci() { [ "${CI:-}" = true ] || [ "${CI:-}" = 1 ]; }

can_install_packages() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# Install Debian packages without questions and without starting the servers among them. The tests
# start private servers, and a default server would only take a port.
install_packages() (
    say "Installing Debian packages: $*"
    log=$(mktemp)
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then policy=; else printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"; fi
    trap 'rm -f "$log" $policy' EXIT
    trap 'exit 130' INT TERM
    apt_install "$@" || { apt-get update -q && apt_install "$@"; } >>"$log" 2>&1 </dev/null && return
    cat "$log" >&2
    return 1
)

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >>"$log" 2>&1 </dev/null
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# Set `version` and `lock`, or end with one sentence.
choose_lock() {
    version=$(python_version "$PYTHON") || fail "There is no Python \"$PYTHON\". Name one, 3.11 or" \
        "newer: make $TARGET PYTHON=/path/to/python3.11"
    case $version in
    2.* | 3.[0-9] | 3.10) fail "daemonkit needs Python 3.11 or newer, and \"$PYTHON\" is $version." \
        "Name another one: make $TARGET PYTHON=/path/to/python3.11" ;;
    3.11) lock=requirements/django52.txt ;;
    *) lock=requirements/django61.txt ;;
    esac
}

# Make the virtual environment, unless it exists and has this version of Python.
need_venv() {
    choose_lock
    if [ "$(python_version "$VENV/bin/python")" = "$version" ] && [ -x "$VENV/bin/pip" ]; then
        return
    fi
    if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV")" ]; then
        fail "$VENV exists and is no virtual environment: name another folder with VENV=..."
    fi
    need_venv_module
    say "Making a virtual environment with Python $version in $VENV"
    "$PYTHON" -m venv --clear "$VENV" || fail "\"$PYTHON\" cannot make a virtual environment in $VENV."
}

need_venv_module() {
    if "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null; then return; fi
    if can_install_packages && install_packages "python$version-venv"; then return; fi
    fail "\"$PYTHON\" lacks the module venv: install it (Debian: apt install python$version-venv)."
}

# A stamp holds a checksum of what was installed, so that the next run need not install it again.
fingerprint() { cat pyproject.toml requirements/dev.in "$lock" scripts/lib.sh | cksum; }
is_stamped() { [ "$(cat "$VENV/.installed-$1" 2>/dev/null)" = "$(fingerprint)" ]; }
stamp() { fingerprint >"$VENV/.installed-$1"; }

pip_install() { "$VENV/bin/python" -m pip install -qq "$@"; }

# Install daemonkit and its dependencies at the locked versions, without database drivers and
# development tools.
install_for_run() {
    need_venv
    if is_stamped run || is_stamped dev; then return; fi
    say "Installing daemonkit into $VENV"
    pip_install --constraint "$lock" --editable . || fail "The installation failed: see above."
    stamp run
}

# Install everything in the lock file. mysqlclient is compiled and may fail; the rest must not fail
# with it.
install_for_development() {
    need_venv
    if is_stamped dev; then return; fi
    say "Installing the locked development environment ($lock) into $VENV"
    grep -v '^mysqlclient==' "$lock" | pip_install --requirement /dev/stdin \
        || fail "The installation failed: see above."
    pip_install --no-deps --no-build-isolation --editable . || fail "The installation failed: see above."
    if pip_install --constraint "$lock" mysqlclient && "$VENV/bin/python" -c 'import MySQLdb'; then
        stamp dev
    elif is_ci; then
        fail "mysqlclient could not be built or imported: see above."
    else
        say "mysqlclient could not be built or imported (Debian: apt install libmariadb-dev pkg-config gcc" \
            "python3-dev), so the tests of Django on MariaDB are skipped."
    fi
}

# Other people's packages, which the tests run daemonkit beside: one folder for each lock file, and
# not in the environment itself, where two versions of one driver would be in each other's way.
install_third_party() {
    for list in requirements/third_party/*.txt; do
        folder=$VENV/third_party/$(basename "$list" .txt)
        if [ "$(cat "$folder/.installed" 2>/dev/null)" = "$(cksum <"$list")" ]; then continue; fi
        say "Installing $list into $folder"
        rm -rf "$folder"
        if pip_install --no-deps --target "$folder" --requirement "$list"; then
            cksum <"$list" >"$folder/.installed"
        elif is_ci; then
            fail "The installation failed: see above."
        else
            rm -rf "$folder"
            say "$list could not be installed, so the tests beside its packages are skipped."
        fi
    done
}
