"""Measure the processor time of `zoo list decoders`, with and without many third-party plugins.

The script creates two environments in a temporary folder, both with access to the packages of the current environment. It
installs small plugins into one of them, and runs the command in the two environments alternately. Each printed figure is the
command's smallest processor time (user plus system) in any of the rounds.
"""

from __future__ import annotations

import argparse
import compileall
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

MODULE = '''"""Plugin {number} of many, as light as a plugin should be."""

import zoo

zoo_api = 1


@zoo.plugin.hookimpl
def zoo_decoders():
    yield zoo.plugin.DecoderSpec(
        name="decoder-{number:02}",
        factory="light_{number:02}.modules:Decoder",
        needs=zoo.Needs(min_levels=2),
        options=(zoo.plugin.Option(name="width", default=64, summary="channels of every map"),),
        source="benchmarks/listing.py",
        license="Apache-2.0",
    )
'''


def make_environment(folder: Path) -> Path:
    """Create an environment that can also import the packages of the current one. Return the path of its Python executable."""
    venv.create(folder, symlinks=os.name != "nt", with_pip=False)
    outer = sysconfig.get_path("purelib")
    (site_of(folder) / "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n", encoding="utf-8")
    scripts = sysconfig.get_path("scripts", "venv", {"base": str(folder), "platbase": str(folder)})
    return Path(scripts) / ("python.exe" if os.name == "nt" else "python")


def site_of(folder: Path) -> Path:
    """Return the site-packages folder of an environment."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))


def write_plugins(site: Path, count: int) -> list[str]:
    """Write `count` small plugins as installed, compiled distributions, and return the ids of their decoders."""
    for number in range(count):
        info = site / f"light_{number:02}-1.0.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: light-{number:02}\nVersion: 1.0\n", encoding="utf-8"
        )
        info.joinpath("entry_points.txt").write_text(f"[zoo]\nlight-{number:02} = light_{number:02}\n", encoding="utf-8")
        site.joinpath(f"light_{number:02}.py").write_text(MODULE.format(number=number), encoding="utf-8")
    compileall.compile_dir(site, quiet=1)
    return [f"light-{number:02}:decoder-{number:02}" for number in range(count)]


def seconds(python: Path) -> float:
    """Return the processor time of one `zoo list decoders` in seconds."""
    from resource import RUSAGE_CHILDREN, getrusage

    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([python, "-m", "zoo", "list", "decoders"], check=True, stdout=subprocess.DEVNULL, env=environment())
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment() -> dict[str, str]:
    """Return the environment variables for the command: those of this process, and a setting for a single thread.

    Variables that affect Python or zoo are left out.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZOO_", "PYTHON"))}
    return {**kept, "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Measure, and print one line for each environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugins", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        bare, full = Path(folder, "bare"), Path(folder, "full")
        pythons = {0: make_environment(bare), arguments.plugins: make_environment(full)}
        write_plugins(site_of(full), arguments.plugins)
        for python in pythons.values():
            seconds(python)  # the first run compiles modules
        taken: dict[int, list[float]] = {count: [] for count in pythons}
        for _ in range(arguments.rounds):
            for count, python in pythons.items():
                taken[count].append(seconds(python))
    print(f"zoo list decoders, processor time, best of {arguments.rounds} (Python {sys.version.split()[0]})")
    for count, figures in taken.items():
        print(f"{count:4} third-party plugins  {min(figures):.3f} s")


if __name__ == "__main__":
    main()
