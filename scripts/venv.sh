# Sourced by the other scripts: makes .venv and installs medseg into it, once.
# make_venv EXTRAS        for example: make_venv openvino

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"

stop() {
    printf 'error: %s\n' "$@" >&2
    exit 2
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.12 python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
            >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
        if [ "$candidate" = "${PYTHON:-}" ]; then
            stop "PYTHON must be Python 3.11 or 3.12, got $PYTHON."
        fi
    done
    stop "Python 3.11 or 3.12 is needed and was not found." \
        "Install one, or name it: PYTHON=/path/to/python3.12 $0"
}

# What the environment was made from: it is brought up to date when this changes.
wanted_stamp() {
    "$venv/bin/python" - "$1" "$root/pyproject.toml" "$root/scripts/constraints.txt" <<'PYTHON'
import hashlib, pathlib, sys

extras, *files = sys.argv[1:]
contents = b"".join(pathlib.Path(file).read_bytes() for file in files)
print(extras, sys.version.split()[0], hashlib.sha256(contents).hexdigest())
PYTHON
}

explain_failed_install() {
    local log="$1" cause="see the lines above"
    if grep -qi 'no space left' "$log"; then
        cause="the disk is full; an installation takes about 7 GB in $venv and 4 GB in the temporary folder (TMPDIR)"
    elif grep -qiE 'NewConnectionError|Temporary failure in name resolution|ReadTimeout|ConnectTimeout|ProxyError|Max retries exceeded|connection (broken|reset)' "$log"; then
        cause="the package index cannot be reached; check the network, or the proxy and index in pip's configuration"
    elif grep -qiE 'No matching distribution|Could not find a version' "$log"; then
        cause="a package in scripts/constraints.txt is not on offer for $("$venv/bin/python" --version) on $(uname -sm)"
    fi
    rm -f "$log"
    stop "the installation failed: $cause." "Run $0 again to go on."
}

make_venv() {
    local extras="$1" python stamp log
    if [ ! -x "$venv/bin/python" ]; then
        python="$(find_python)" || exit 2
        echo "making $venv with $("$python" --version)" >&2
        "$python" -m venv "$venv" \
            || stop "$venv cannot be made (on Debian and Ubuntu: apt install python3-venv)."
    fi
    stamp="$(wanted_stamp "$extras")" || stop "$venv does not run. Delete it and try again."
    if [ "$(cat "$venv/.medseg-stamp" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    # The tests' environment holds everything that the demo's does.
    if [ "$(cat "$venv/.medseg-stamp" 2>/dev/null)" = "$(wanted_stamp all,dev)" ]; then
        return
    fi
    echo "installing medseg[$extras] into $venv; the first time this takes some minutes and 7 GB" >&2
    log="$(mktemp)"
    rm -f "$venv/.medseg-stamp"
    if ! (
        cd "$root" && set -o pipefail
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            -c scripts/constraints.txt -e ".[$extras]" 2>&1 | tee "$log" >&2
    ); then
        explain_failed_install "$log"
    fi
    rm -f "$log"
    printf '%s\n' "$stamp" > "$venv/.medseg-stamp"
}
