"""Download the wheels that `benchmarks/gpu.sh` needs on another machine, except those of torch and torchvision.

`make wheels PYTHON_VERSION=3.12` runs this script; PYTHON_VERSION is the other machine's version of Python. Then copy the
folder `wheels` to that machine, which may be offline.

The wheels that the project itself requires are downloaded first, then those of each part of `gpu_parts.py`, most important
first. If the folder would exceed its size limit with the wheels of a part, these wheels are left out.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from gpu_parts import ROOT, needed_by_part
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PRESENT = ("torch", "torchvision")
PROJECT = ("segmentation-zoo", "hatchling")
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
LIMIT_MIB = 60


def closure(names: Iterable[str], stop: frozenset[str] = frozenset()) -> set[str]:
    """Return these distributions and all distributions that they require, directly or indirectly, if they are installed.

    The distributions in `stop` are left out, and so is what only they require.
    """
    seen: set[tuple[str, str]] = set()
    found: set[str] = set()
    waiting = [(name, "") for name in names]  # pairs of a distribution and a requested extra; "" stands for no extra
    while waiting:
        name, extra = waiting.pop()
        name = canonicalize_name(name)
        if (name, extra) in seen or (name in stop and not extra):
            continue
        seen.add((name, extra))
        try:
            needed = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue
        found |= {name} - stop
        for each in needed:
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                waiting += [(each.name, wanted) for wanted in ("", *each.extras)]
    return found


def download(names: Iterable[str], python_version: str, folder: Path) -> None:
    """Download the wheels of these distributions for `python_version`, in the versions that are installed on this machine."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", python_version]
    command += [part for platform in PLATFORMS for part in ("--platform", platform)]
    subprocess.run([*command, "--dest", str(folder), *(f"{name}=={version(name)}" for name in sorted(names))], check=True)


def mib(folder: Path) -> float:
    """Return the size of a folder's wheels in MiB."""
    return sum(wheel.stat().st_size for wheel in folder.glob("*.whl")) / 2**20


def main() -> int:
    """Download the wheels part by part, and print the number and size of each part's wheels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python-version", required=True, help="the Python version of the other machine, such as 3.12")
    parser.add_argument("--output", type=Path, default=Path("wheels"))
    parser.add_argument("--limit", type=float, default=LIMIT_MIB, help=f"the largest size of the folder, in MiB ({LIMIT_MIB})")
    asked = parser.parse_args()
    wheels: Path = asked.output
    wheels.mkdir(parents=True, exist_ok=True)
    for earlier in wheels.glob("*.whl"):  # old wheels may have other versions, and would count toward the size
        earlier.unlink()
    have = closure(PRESENT) - {"typing-extensions"}  # downloaded, since the other machine's version is often too old
    for part, wanted in {"the project": PROJECT, **needed_by_part()}.items():
        absent = [name for name in wanted if not closure([name])]
        if absent:
            print(f"{part}: no version of {', '.join(absent)} is installed here. Install it: pip install {' '.join(absent)}")
            return 1
        names = closure(wanted, stop=frozenset(have)) - {"segmentation-zoo"}
        with tempfile.TemporaryDirectory() as drafts:
            folder = Path(drafts)
            download(names, asked.python_version, folder)
            size, held = mib(folder), mib(wheels)
            if held + size > asked.limit:
                print(f"{part}: left out {', '.join(sorted(names))}, {size:.1f} MiB: the limit is {asked.limit:g} MiB")
                if part == "the project":
                    return 1
                continue
            for wheel in folder.glob("*.whl"):
                shutil.move(wheel, wheels)
        have |= names
        print(f"{part}: {len(names)} wheels, {size:.1f} MiB")
    size = mib(wheels)
    print(f"{len(list(wheels.glob('*.whl')))} wheels for Python {asked.python_version} in {wheels}/: {size:.1f} MiB")
    print(f"With this checkout, {size + checkout_mib():.1f} MiB have to be copied.")
    return 0


def checkout_mib() -> float:
    """Return the size of the checkout's files in MiB, without the files that git ignores."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    return sum((ROOT / name).stat().st_size for name in names if name and (ROOT / name).is_file()) / 2**20


if __name__ == "__main__":
    raise SystemExit(main())
