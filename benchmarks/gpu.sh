#!/usr/bin/env bash
# Measure on a machine that has an accelerator, Python, torch and torchvision, but no network. The script needs this checkout
# and a folder of wheels (made with `make wheels` on a machine with a network).
#
#   benchmarks/gpu.sh [--wheels DIR] [--results DIR] [--seconds N] [--parts NAMES] [--python PYTHON] [--tiny]
#
# The script runs the parts of benchmarks/gpu_parts.py, most important first, until N seconds have passed (540 by default). It
# writes at most eight files into the results folder. To continue, call the script again with the same results folder; to
# continue on another machine, copy the folder there first. Finished steps are not repeated. `--tiny` tests the script itself
# with tiny settings. Without an accelerator, the script measures on the CPU, and the names of the files show this.
#
# The script installs nothing into PYTHON. It makes a temporary environment that can import the packages of PYTHON, and installs
# the missing packages there.
set -euo pipefail

began=$(date +%s)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wheels=$root/wheels
results=$root/results/gpu
python=python3
options=()

usage() {
    echo "gpu.sh: $1. The options are --wheels DIR, --results DIR, --seconds N, --parts NAMES, --python PYTHON, --tiny." >&2
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
    echo "gpu.sh: found no folder of wheels at $wheels. On a machine with a network, run: make wheels PYTHON_VERSION=3.12" >&2
    echo "        (the version of this machine's Python). Then copy the folder here, and pass its path as --wheels DIR." >&2
    exit 2
}
"$python" -c 'import torch, torchvision' || {
    echo "gpu.sh: $python cannot import torch and torchvision. Pass the path of another Python as --python." >&2
    exit 2
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv --without-pip "$work/env"
# Use a .pth file instead of --system-site-packages, which does not include the packages of a Python that is in a venv itself.
"$python" - "$work/env" <<'PY'
import glob, pathlib, site, sys, sysconfig

paths = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()])
(target,) = glob.glob(f"{sys.argv[1]}/lib/python*/site-packages")
pathlib.Path(target, "parent.pth").write_text("\n".join(paths) + "\n")
PY

install=("$python" -m pip --python "$work/env/bin/python" install --quiet --no-index --find-links "$wheels")
"${install[@]}" hatchling
"${install[@]}" --no-build-isolation --editable "$root"
# Packages that only some parts need may be missing. gpu.py skips these parts, and reports the missing packages.
"$python" "$root/benchmarks/gpu.py" --list-needs | while read -r name; do
    "${install[@]}" "$name" 2>"$work/pip" || echo "gpu.sh: $name cannot be installed from $wheels: $(tail -n 1 "$work/pip")" >&2
done

trap - EXIT # exec replaces this process with gpu.py, which removes the folder and receives the signals sent to this process
exec "$work/env/bin/python" "$root/benchmarks/gpu.py" --results "$results" --remove "$work" --spent $(($(date +%s) - began)) \
    "${options[@]}"
