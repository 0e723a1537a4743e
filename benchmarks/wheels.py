"""Fetches what `benchmarks/gpu.sh` needs beside torch and torchvision, as wheels for another machine's Python.

`make wheels PYTHON_VERSION=3.12` runs it; the folder is then copied to the machine without a network.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

PRESENT = ("torch", "torchvision")
WANTED = ("segmentation-zoo", "hatchling")
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17)] + ["manylinux2014_x86_64", "manylinux1_x86_64"]


def closure(names: tuple[str, ...], stop: frozenset[str] = frozenset()) -> set[str]:
    """Return the distributions that these require, themselves included, as far as they are installed here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found or name in stop:
            continue
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        found.add(name)
        waiting += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]
    return found


def main() -> None:
    """Download the wheels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python-version", required=True, help="of the other machine, such as 3.12")
    parser.add_argument("--output", type=Path, default=Path("wheels"))
    arguments = parser.parse_args()
    heavy = closure(("torch", "torchvision"))
    light = closure(WANTED, stop=frozenset({*heavy, *PRESENT})) - {"segmentation-zoo"} | {"typing-extensions"}
    pinned = sorted(f"{name}=={version(name)}" for name in light)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", arguments.python_version]
    command += [part for platform in PLATFORMS for part in ("--platform", platform)]
    subprocess.run([*command, "--dest", str(arguments.output), *pinned], check=True)
    print(f"{len(pinned)} wheels for Python {arguments.python_version} in {arguments.output}/")


if __name__ == "__main__":
    main()
