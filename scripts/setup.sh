#!/usr/bin/env bash
# Builds an environment, or only names the Python it would use:
#   scripts/setup.sh main FOLDER      the project and its tools
#   scripts/setup.sh legacy FOLDER    tflite-runtime, apart from the rest: it needs an old numpy
#   scripts/setup.sh mediapipe FOLDER MediaPipe, apart from the rest: it brings OpenCV and more
#   scripts/setup.sh python           prints the Python that `main` takes
# PYTHON names another Python for `main`. FOLDER/.installed appears only after every step worked.
set -euo pipefail
cd "$(dirname "$0")/.."

legacy_packages=(tflite-runtime==2.14.0 numpy==1.26.4)
mediapipe_packages=(mediapipe==1.2.2 numpy==2.2.6 flatbuffers==25.12.19)

# usable PYTHON MINORS: it starts, is 3.x with x among MINORS, and can create an environment.
usable() {
    "$1" -c "import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in [(3, m) for m in ($2,)])" \
        >/dev/null 2>&1
}

# first MINORS CANDIDATE...: the first usable candidate.
first() {
    local minors=$1 candidate
    shift
    for candidate in "$@"; do
        if [ -n "$candidate" ] && usable "$candidate" "$minors"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

main_python() {
    if [ -n "${PYTHON:-}" ]; then
        first 10,11,12 "$PYTHON" && return
        echo "setup: PYTHON=$PYTHON is not a Python 3.10-3.12 that can create environments" >&2
    else
        first 10,11,12 python3.11 python3.12 python3.10 python3 && return
        echo "setup: no Python 3.10-3.12 that can create environments was found; install one" \
            "(Debian and Ubuntu: apt-get install python3-venv) or run make with PYTHON=/path/to/python" >&2
    fi
    return 1
}

# create PYTHON FOLDER: an environment that works and has that Python's version is kept.
create() {
    local version="import sys; print(sys.version_info[:2])"
    if [ -x "$2/bin/python" ] && "$2/bin/python" -m pip --version >/dev/null 2>&1 &&
        [ "$("$2/bin/python" -c "$version")" = "$("$1" -c "$version")" ]; then
        return
    fi
    rm -rf "$2"
    "$1" -m venv "$2"
}

# install FOLDER ARGUMENT...: -qq leaves pip's errors and drops its warnings about absent mirrors.
install() {
    local folder=$1
    shift
    if ! "$folder/bin/python" -m pip install -qq --disable-pip-version-check "$@"; then
        echo "setup: pip could not fill $folder; if there was no network, run make setup again with one" >&2
        return 1
    fi
}

setup_main() {
    local folder=$1 python
    python=$(main_python)
    echo "Setting up $folder with $("$python" --version) ..." >&2
    create "$python" "$folder"
    install "$folder" -c constraints.txt setuptools
    install "$folder" -c constraints.txt --no-build-isolation -e '.[dev]'
    touch "$folder/.installed"
}

setup_legacy() {
    local folder=$1 python
    if [ "$(uname -s)" != Linux ] ||
        ! python=$(first 9,10,11 python3.11 python3.10 python3.9 python3 "${PYTHON:-}"); then
        echo "tflite-runtime is not available here: it needs Linux and Python 3.9-3.11" >&2
        return
    fi
    echo "Setting up $folder with $("$python" --version) ..." >&2
    create "$python" "$folder"
    install "$folder" "${legacy_packages[@]}"
    touch "$folder/.installed"
}

setup_mediapipe() {
    local folder=$1 python
    python=$(main_python)
    echo "Setting up $folder with $("$python" --version) ..." >&2
    create "$python" "$folder"
    install "$folder" "${mediapipe_packages[@]}"
    touch "$folder/.installed"
}

case "${1:-} $#" in
    "main 2") setup_main "$2" ;;
    "legacy 2") setup_legacy "$2" ;;
    "mediapipe 2") setup_mediapipe "$2" ;;
    "python 1") main_python ;;
    *)
        echo "usage: scripts/setup.sh main FOLDER | legacy FOLDER | mediapipe FOLDER | python" >&2
        exit 2
        ;;
esac
