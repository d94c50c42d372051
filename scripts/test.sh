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
# a process a core with a thread each: a file of tests stays in one, with what its tests share
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
check python -m pytest -n logical --maxprocesses 8 --dist loadfile "$@"
exit "$failed"
