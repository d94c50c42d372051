#!/usr/bin/env bash
# Makes .venv, installs medseg, and shows the whole way from a DICOM folder to a mask.
#   scripts/demo.sh                        a phantom CT with a known answer
#   scripts/demo.sh PATH [--bundle NAME]   your own DICOM folder (or .zip, or NIfTI file)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

usage() {
    stop "usage: scripts/demo.sh [PATH] [--bundle NAME]"
}

path="" bundle="${MEDSEG_DEMO_BUNDLE:-}"
while [ $# -gt 0 ]; do
    case "$1" in
        --bundle) [ $# -ge 2 ] || usage; bundle="$2"; shift 2 ;;
        -h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -*) usage ;;
        *) [ -z "$path" ] || usage; path="$1"; shift ;;
    esac
done
if [ -n "$path" ]; then
    [ -e "$path" ] || stop "PATH must exist, got $path."
    path="$(cd "$(dirname "$path")" && pwd)/$(basename "$path")"
fi

make_venv openvino
cd "$root"
export PATH="$venv/bin:$PATH"

say() { printf '\n== %s\n' "$*"; }

if [ -n "$path" ]; then
    exec python scripts/demo_own.py "$path" --output demo/own ${bundle:+--bundle "$bundle"}
fi

say "a phantom CT study as a DICOM folder: demo/phantom/dicom"
python scripts/make_phantom_study.py demo/phantom
say "medseg inspect demo/phantom/dicom"
medseg inspect demo/phantom/dicom
say "medseg segment demo/phantom/dicom -b ${bundle:-phantom_ct} -o demo/out"
medseg segment demo/phantom/dicom -b "${bundle:-phantom_ct}" -o demo/out --overwrite
say "medseg evaluate: the mask against the known truth"
mask="$(find demo/out -name segmentation.nii.gz | head -n 1)"
medseg evaluate "$mask" demo/phantom/truth.nii.gz -o demo/out/scores
say "the results"
echo "mask     $mask"
echo "picture  $(find demo/out -name '*.png' | head -n 1)"
echo "report   $(find demo/out -name 'report*' | head -n 1)"
echo "scores   demo/out/scores"
echo
echo "Your own DICOM folder:  scripts/demo.sh PATH"
