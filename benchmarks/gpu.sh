#!/usr/bin/env bash
# Measures on a bare machine that has an accelerator, Python, torch and torchvision, and no network: from this checkout and a
# folder of wheels (made by `make wheels` on a machine with a network).
#
#   benchmarks/gpu.sh [--wheels DIR] [--results DIR] [--seconds N] [--parts NAMES] [--python PYTHON] [--tiny]
#
# It does the parts of benchmarks/gpu_parts.py in order of worth until N seconds have passed (540), and writes at most eight files
# into the folder of results. To go on in another call, on another machine, carry that folder along and name it again: nothing
# is done twice. `--tiny` tries the script itself with tiny settings. Without an accelerator it measures on the CPU, and the
# names of the files say so.
#
# Nothing is installed into the Python it is given: a throw-away environment sees that one's packages and adds what is missing.
set -euo pipefail

began=$(date +%s)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wheels=$root/wheels
results=$root/results/gpu
python=python3
options=()

usage() {
    echo "gpu.sh: $1; it takes --wheels DIR, --results DIR, --seconds N, --parts NAMES, --python PYTHON, --tiny" >&2
    exit 2
}

while (($#)); do
    if [[ $1 == --tiny ]]; then
        options+=("$1")
        shift
        continue
    fi
    (($# > 1)) || usage "$1 has no value"
    case $1 in
        --wheels) wheels=$2 ;;
        --results) results=$2 ;;
        --python) python=$2 ;;
        --seconds | --parts) options+=("$1" "$2") ;;
        *) usage "unknown argument $1" ;;
    esac
    shift 2
done

[[ -d $wheels ]] || {
    echo "gpu.sh: no folder of wheels at $wheels. Make it where there is a network: make wheels PYTHON_VERSION=3.12 (the" >&2
    echo "        version of this machine's Python), copy it here, and give its place as --wheels DIR." >&2
    exit 2
}
"$python" -c 'import torch, torchvision' || {
    echo "gpu.sh: $python must have torch and torchvision; name another with --python." >&2
    exit 2
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv --without-pip "$work/env"
# A .pth file rather than --system-site-packages: that one would skip the packages of a Python that is itself a venv's.
"$python" - "$work/env" <<'PY'
import glob, pathlib, site, sys, sysconfig

paths = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()])
(target,) = glob.glob(f"{sys.argv[1]}/lib/python*/site-packages")
pathlib.Path(target, "parent.pth").write_text("\n".join(paths) + "\n")
PY

install=("$python" -m pip --python "$work/env/bin/python" install --quiet --no-index --find-links "$wheels")
"${install[@]}" hatchling
"${install[@]}" --no-build-isolation --editable "$root"
# What only some parts need may be missing: those parts are left out, and say so.
"$python" "$root/benchmarks/gpu.py" --list-needs | while read -r name; do
    "${install[@]}" "$name" 2>"$work/pip" || echo "gpu.sh: $name cannot be installed from $wheels: $(tail -n 1 "$work/pip")" >&2
done

trap - EXIT # the next process takes this one's place, so that whoever ends this one ends it
exec "$work/env/bin/python" "$root/benchmarks/gpu.py" --results "$results" --remove "$work" --spent $(($(date +%s) - began)) \
    "${options[@]}"
