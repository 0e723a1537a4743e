"""Run every encoder of timm and of smp on random images, together with a decoder: `python benchmarks/coverage_real.py`.

A run on the meta device (coverage.py) shows that the shapes are right, but not that a model works: for example, that device
does not report an index that is out of bounds. This script builds each pairing with random weights, and predicts random images
of 225x301 and 256x320. An architecture that accepts only one size is built for each of these two sizes with `image_size`. A
pairing passes if its logits have the image's size and are finite. Each architecture runs in a process of its own with a memory
limit. If the limit is too low for an architecture, its row says so.

    python benchmarks/coverage_real.py                             # all encoders: hours on two cores; continues if interrupted
    python benchmarks/coverage_real.py --encoders 'timm:mvitv2*'   # some encoders
    python benchmarks/coverage_real.py --first-of-family           # one architecture of each family
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zoo

SIZES = ((225, 301), (256, 320))
FIELDS = ("encoder", "decoder", "memory", "family", "parameters", "size", "ok", "seconds", "error")
ROOT = Path(__file__).resolve().parents[1]

PROCESSES = multiprocessing.get_context("forkserver")
"""Each process is forked from a server process that has imported `IMPORTS`."""
IMPORTS = ("torch", "timm", "segmentation_models_pytorch", "zoo.model.building", "zoo_timm.encoder", "zoo_smp.encoder")

Row = dict[str, Any]


def main() -> None:
    """Measure the missing rows, print the summary, and write the rows and the summary to files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--encoders", nargs="+", default=["timm:*", "smp:*"], metavar="GLOB", help="encoders to run (all of timm and smp)"
    )
    parser.add_argument("--first-of-family", action="store_true", help="run only the first encoder of each family")
    parser.add_argument("--decoder", default="unet-basic")
    parser.add_argument("--memory", type=float, default=8, help="the memory limit of a process, in GiB (8)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "results/coverage-real.csv",
        help="the CSV file to which each row is written when it is measured",
    )
    parser.add_argument("--summary", action="store_true", help="measure nothing, and summarize the existing rows")
    asked = parser.parse_args()
    if asked.memory < 1:
        parser.error(f"--memory must be at least 1 GiB; found {asked.memory:g}")
    PROCESSES.set_forkserver_preload([*IMPORTS])
    names = [name for name in zoo.list_encoders() if any(fnmatch(name, glob) for glob in asked.encoders)]
    if asked.first_of_family:
        names = list({find_family(name): name for name in reversed(names)}.values())[::-1]
    rows = read_rows(asked) if asked.summary else measure(names, asked)
    text = format_summary({name: rows[name] for name in names if name in rows}, len(names), asked.decoder)
    asked.output.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def find_family(encoder: str) -> str:
    """Return the name of the module of timm or smp that defines an encoder."""
    plugin, _, name = encoder.partition(":")
    if plugin == "timm":
        import timm

        return timm.model_entrypoint(name).__module__
    from segmentation_models_pytorch.encoders import encoders

    return str(encoders[name]["encoder"].__module__)


def measure(names: list[str], asked: argparse.Namespace) -> dict[str, list[Row]]:
    """Return the rows of each encoder.

    An encoder does not run if the output file already has its rows for this decoder, memory limit and the installed versions.
    """
    place: Path = asked.output
    place.parent.mkdir(parents=True, exist_ok=True)
    known = read_rows(asked)
    sizes = read_sizes()
    left = sorted((name for name in names if name not in known), key=lambda name: sizes.get(name, 0))  # large encoders last
    began = time.perf_counter()
    with place.open("a", newline="", encoding="utf-8") as file, ThreadPoolExecutor(asked.processes) as pool:
        writer = csv.DictWriter(file, (*FIELDS, "versions"))
        if not file.tell():
            writer.writeheader()
        jobs = {pool.submit(run_in_process, name, asked.decoder, asked.memory): name for name in left}
        for done, job in enumerate(as_completed(jobs), start=1):
            known[jobs[job]] = job.result()
            writer.writerows({**row, "versions": format_versions()} for row in job.result())
            file.flush()
            if done % 50 == 0:
                print(f"{done} of {len(left)} in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return {name: known[name] for name in names}


def read_sizes() -> dict[str, int]:
    """Return how many parameters each of timm's architectures has together with unet-basic, from the coverage table."""
    path = ROOT / f"benchmarks/results/coverage-timm-{version('timm')}.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["decoder"] == "unet-basic"]
    return {f"timm:{row['architecture']}": int(row["parameters"]) for row in rows}


def read_rows(asked: argparse.Namespace) -> dict[str, list[Row]]:
    """Return a mapping from encoders to their rows in the output file.

    Rows with another decoder, memory limit or library version are left out. An encoder whose rows are incomplete is left out,
    too.
    """
    found: dict[str, list[Row]] = {}
    wanted = (asked.decoder, f"{asked.memory:g}", format_versions())
    if asked.output.exists():
        with asked.output.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if (row["decoder"], row["memory"], row.pop("versions")) == wanted:
                    found.setdefault(row["encoder"], []).append(row)
    return {name: rows for name, rows in found.items() if len(rows) == len(SIZES)}


def format_versions() -> str:
    """Return, as text, the versions of the libraries on which the rows depend."""
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "segmentation-models-pytorch", "segmentation-zoo"))


def run_in_process(name: str, decoder: str, memory: float) -> list[Row]:
    """Run an encoder in a process with a memory limit (GiB), and return its rows."""
    receiving, sending = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=send_rows, args=(sending, name, decoder, memory))
    process.start()
    sending.close()
    rows: list[Row] = []
    try:
        while True:
            rows.append(receiving.recv())
    except EOFError:
        process.join()
    error = {"error": f"its process ended with exit status {process.exitcode}"}
    return rows + [make_row(name, decoder, memory, size) | error for size in SIZES[len(rows) :]]


def make_row(name: str, decoder: str, memory: float, size: tuple[int, int]) -> Row:
    """Return a row that has no results yet and is marked as failed."""
    facts = {"encoder": name, "decoder": decoder, "memory": f"{memory:g}", "family": find_family(name)}
    return {**dict.fromkeys(FIELDS, ""), **facts, "size": format_size(size), "ok": 0}


def send_rows(sending: Connection, name: str, decoder: str, memory: float) -> None:
    """Limit this process to one thread and `memory` GiB, and send each of an encoder's rows as soon as it is measured."""
    import resource

    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory * 2**30),) * 2)
    for row in run_encoder(name, decoder, memory):
        sending.send(row)


def run_encoder(name: str, decoder: str, memory: float) -> Iterator[Row]:
    """Yield a row for each size. A model that accepts every size is built only once."""
    import torch

    from zoo.common.devices import is_out_of_memory

    model = None
    for size in SIZES:
        row = make_row(name, decoder, memory, size)
        began = time.perf_counter()
        try:
            if model is None or zoo.negotiate(name, decoder, image_size=size).sizes.image_size is not None:
                model = None  # frees the previous model first, because memory is limited
                torch.manual_seed(0)
                model = zoo.build(name, decoder, image_size=size).eval()
            row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
            with torch.inference_mode():
                logits = model(torch.rand(1, 3, *size))
            if tuple(logits.shape) != (1, 1, *size):
                row["error"] = f"logits of shape {tuple(logits.shape)}"
            elif not logits.isfinite().all():
                row["error"] = "logits that are not finite"
            row["ok"] = int(not row["error"])
        except Exception as error:  # noqa: BLE001 - every failure is a row
            model = None
            message = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            row["error"] = f"needs more than {memory:g} GiB" if is_out_of_memory(error) else message
        row["seconds"] = round(time.perf_counter() - began, 1)
        yield row


def format_size(size: tuple[int, int]) -> str:
    """Return a size as text, such as "225x301"."""
    return f"{size[0]}x{size[1]}"


def format_summary(rows: dict[str, list[Row]], num_encoders: int, decoder: str) -> str:
    """Return the summary as Markdown: the counts, and the name and error of each failure."""
    missing = num_encoders - len(rows)
    count = f"{len(rows):,} of {num_encoders:,}" if missing else f"{num_encoders:,}"
    lines = [f"# On random images: {count} encoders x {decoder}", "", f"Measured with {format_versions()}.", ""]
    lines += [f"Not measured yet: {missing:,}.", ""] if missing else []
    lines += ["| size | passed | failed |", "| --- | ---: | ---: |"]
    every = [row for each in rows.values() for row in each]
    for size in map(format_size, SIZES):
        of_size = [row for row in every if row["size"] == size]
        passed = sum(str(row["ok"]) == "1" for row in of_size)
        lines.append(f"| {size} | {passed} | {len(of_size) - passed} |")
    failed = [row for row in every if str(row["ok"]) != "1"]
    lines += ["", "## Failed", ""]
    lines += [f"- {row['encoder']} at {row['size']}: {row['error']}" for row in failed] or ["None."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
