#!/usr/bin/env bash
# Makes .venv, installs medseg with everything optional, and runs all checks.
#   scripts/test.sh [PYTEST ARGUMENTS]      for example: scripts/test.sh -k dicom
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
make_venv all,dev
cd "$root"
export PATH="$venv/bin:$PATH"

failed=0
check() {
    echo "== $*" >&2
    "$@" || failed=1
}
check ruff check .
check ruff format --check .
check mypy
check python -m pytest "$@"
exit "$failed"
