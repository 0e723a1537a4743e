"""Measure the atlas and write its files: `python benchmarks/atlas.py`.

The atlas is the run of configs/atlas.yaml: encoders of nearly all of timm's families, each with several decoders, on the CPU.
It takes more than an hour. The results are kept in results/atlas.sqlite. If the script is interrupted, the same command goes on
with the same run, as long as the machine, the software and zoo's code are the same; otherwise it starts a new run.

The script writes the rows as benchmarks/results/atlas-cpu.csv, those that are the fastest for their FLOPs as
benchmarks/results/atlas-cpu.md, the page with the table that sorts and filters as docs/results/atlas-cpu.html, and the plot as
docs/images/atlas-cpu.svg. `--write` writes these files from the latest run without measuring anything.

    pip install ".[smp]" matplotlib
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import zoo
from zoo.benchmark.analysis.selection import select_runs
from zoo.benchmark.report import write_report
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.columns import column_named
from zoo.benchmark.table.document import document
from zoo.benchmark.table.export import exported_rows
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import Table, table_of
from zoo.search.ranking import closeness

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs/atlas.yaml"
STORE = ROOT / "results/atlas.sqlite"
ROWS = ROOT / "benchmarks/results/atlas-cpu.csv"
FRONT = ROOT / "benchmarks/results/atlas-cpu.md"
PAGE = ROOT / "docs/results/atlas-cpu.html"
PLOT = ROOT / "docs/images/atlas-cpu.svg"
COLUMNS = ("pairing", "latency", "memory", "parameters", "flops", "licenses")
MARKS = {"unet-basic": "o", "unet-bilinear": "s", "unet-attention": "^"}


def main() -> None:
    """Measure the run, or go on with it, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="Only write the files from the latest run.")
    if parser.parse_args().write:
        with closing(Store(STORE, must_exist=True)) as store:
            table = table_of(store, *select_runs(store))
    else:
        table = zoo.bench(CONFIG, store=STORE)
    ROWS.write_bytes(exported_rows(table, "csv"))
    front = replace(table, rows=tuple(fastest_for_their_flops(table.rows)), checks=())
    FRONT.write_text(document(front, [column_named(name) for name in COLUMNS]).render("markdown"), encoding="utf-8")
    write_report(table, PAGE, plots=False)  # the site has a plot of its own
    draw(table).savefig(PLOT, metadata={"Date": None})


def fastest_for_their_flops(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are faster than all others with at least their FLOPs, the fastest first."""
    measured = [row for row in rows if row.latency and row.flops]
    shares = closeness([(row.latency.median, float(row.flops or 0)) for row in measured if row.latency])
    front = [row for row, share in zip(measured, shares, strict=True) if share == 1]
    return sorted(front, key=lambda row: row.latency.median if row.latency else 0.0)


def draw(table: Table) -> Figure:
    """Return a plot of latency against FLOPs, with a line through the rows that are the fastest for their FLOPs."""
    rows = [row for row in table.rows if row.latency and row.flops]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    others = [row for row in rows if row.decoder not in MARKS]
    axes.scatter(*points(others), s=14, marker="x", color="0.55", linewidths=0.8, label="other decoders")
    for decoder, mark in MARKS.items():
        axes.scatter(*points([row for row in rows if row.decoder == decoder]), s=14, marker=mark, alpha=0.6, label=decoder)
    axes.plot(*points(fastest_for_their_flops(rows)), color="black", linewidth=1, label="fastest for their FLOPs")
    axes.set(xscale="log", yscale="log", xlabel="latency of one 256x256 image, ms", ylabel="GFLOPs")
    axes.legend(frameon=False)
    return figure


def points(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Return the latencies in milliseconds and the GFLOPs."""
    return [row.latency.median * 1e3 for row in rows if row.latency], [(row.flops or 0) / 1e9 for row in rows]


if __name__ == "__main__":
    main()
