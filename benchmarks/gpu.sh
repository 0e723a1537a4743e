#!/usr/bin/env bash
# Measures the ResNet18 pairings on a bare machine: an accelerator, Python, torch and torchvision, but no network.
# From this checkout and a folder of wheels (made by `make wheels` on a machine with a network).
#
#   benchmarks/gpu.sh [--wheels DIR] [--config FILE] [--output FILE.csv] [--python PYTHON]
#
# Nothing is installed into the Python it is given: a throw-away environment sees that one's packages and adds what is
# missing. Without an accelerator it measures on the CPU, and the table says so.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wheels=$root/wheels
config=$root/configs/gpu.yaml
output=$root/benchmarks/results/gpu.csv
python=python3

usage() {
    echo "gpu.sh: $1; it takes --wheels DIR, --config FILE, --output FILE.csv, --python PYTHON" >&2
    exit 2
}

while (($#)); do
    (($# > 1)) || usage "$1 has no value"
    case $1 in
        --wheels) wheels=$2 ;;
        --config) config=$2 ;;
        --output) output=$2 ;;
        --python) python=$2 ;;
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

mkdir -p "$(dirname "$output")"
"$work/env/bin/python" -m zoo bench "$config" --store "${output%.csv}.sqlite" --output "$output"
