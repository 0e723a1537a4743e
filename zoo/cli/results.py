"""The commands that answer from what was measured: table, compare, recommend."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.answers import note
from zoo.cli.application import app, fail
from zoo.cli.console import (
    STORE,
    FormatName,
    FormatOption,
    OutputOption,
    RunsArgument,
    StoreOption,
    check_writable,
    format_of,
    opened_store,
    show_table,
)
from zoo.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.benchmark.store import Store
    from zoo.benchmark.table import Table
    from zoo.common.grid import Document

__all__: list[str] = []


class By(StrEnum):
    """What `zoo compare` compares."""

    ratio = "ratio"
    latency = "latency"


class ModeName(StrEnum):
    """What a pairing does."""

    inference = "inference"
    training = "training"


@app.command()
def table(
    runs: RunsArgument = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="By this column, or several by commas; -COLUMN turns round.", show_default="as measured"
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="These columns, by commas, or 'all'; an unknown name lists them.",
            show_default="the usual ones",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Rows that meet this, such as 'latency<20ms', 'decoder~unet*', 'mode=training'; several must all hold.",
            show_default="all",
        ),
    ] = None,
    pareto: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Rows that no other of their block beats in all of these, such as latency,memory.",
            show_default="all",
        ),
    ] = None,
    format: FormatOption = None,
    output: OutputOption = None,
    store: StoreOption = STORE,
) -> None:
    """Show the table of runs that were measured: all of it, or the rows and columns asked for.

    Exit status 1: no row meets the conditions.
    """
    from zoo.benchmark.columns import chosen_columns
    from zoo.benchmark.formats import document
    from zoo.benchmark.selection import filtered, nothing_left, sorted_by
    from zoo.benchmark.selection import pareto as pareto_of

    form = format or format_of(output)
    with opened_store(store) as opened:
        whole = _table(opened, runs)
        found = filtered(whole, where or [])
        if not found.rows:
            fail(nothing_left(whole, where or []), 1)
        found = pareto_of(found, pareto) if pareto else found
        found = sorted_by(found, sort) if sort else found
        chosen = chosen_columns(found.rows, columns)
        _show(document(found, chosen), form, output, store)


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The earlier run: a number or a name.", show_default=False)],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The later run.", show_default=False)],
    by: Annotated[
        By | None,
        typer.Option(
            help="The ratio to the baseline, in which the machine's speed cancels, or the latency as it was.",
            show_default="ratio, where both runs have the baseline",
        ),
    ] = None,
    different_devices: Annotated[
        bool, typer.Option("--different-devices", help="Also compare what was measured on different devices.")
    ] = False,
    fail_if_slower: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE", help="Exit with status 1 if any trial is slower by more than this, such as 5%.", show_default=False
        ),
    ] = None,
    format: FormatOption = None,
    output: OutputOption = None,
    store: StoreOption = STORE,
) -> None:
    """Compare two runs trial by trial: what became slower or faster, what changed in size, what fails now.

    Exit status 1: with --fail-if-slower, some trial is slower by more than that with its whole interval, or fails now.
    """
    from zoo.benchmark.compare import compare as compare_runs
    from zoo.benchmark.compare_formats import document, told_trial
    from zoo.benchmark.selection import chosen_runs
    from zoo.benchmark.trial import told_block

    form = format or format_of(output)
    share = None if fail_if_slower is None else _share(fail_if_slower)
    with opened_store(store) as opened:
        (before,), (after,) = chosen_runs(opened, [run_a]), chosen_runs(opened, [run_b])
        found = compare_runs(opened, before, after, by=by.value if by else None, anywhere=different_devices)
        _show(document(found), form, output, store)
    if share is None:
        return
    if slower := found.slower_than(share):
        told = (f"  {told_trial(each.trial)}, {told_block(each.trial.block)}: {each.quotient.told()}" for each in slower)
        fail("\n".join([f"Slower than --fail-if-slower {fail_if_slower} allows:", *told]), 1)
    if found.fails_now:
        told = (f"  {told_trial(each.trial)}, {told_block(each.trial.block)}" for each in found.fails_now)
        fail("\n".join([f"Failing in {run_b}, and not in {run_a}:", *told]), 1)
    note(f"None of {len(found.judged)} trials is slower by more than {fail_if_slower}.")


@app.command()
def recommend(
    runs: RunsArgument = None,
    device: Annotated[
        str | None,
        typer.Option(help="'cpu', 'cuda', or a part of the device's name.", show_default="every one that was measured"),
    ] = None,
    mode: Annotated[ModeName, typer.Option(help="What the pairing is to do.")] = ModeName.inference,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a call.", show_default="each that was measured")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Of the image; 256 for a square.", show_default="each that was measured")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Such as bfloat16.", show_default="each that was measured")] = None,
    max_latency: Annotated[str | None, typer.Option(metavar="20ms", help="Time a call at most.", show_default=False)] = None,
    max_memory: Annotated[str | None, typer.Option(metavar="500MiB", help="Peak at most.", show_default=False)] = None,
    max_parameters: Annotated[str | None, typer.Option(metavar="30M", help="Parameters at most.", show_default=False)] = None,
    max_flops: Annotated[str | None, typer.Option(metavar="20G", help="FLOPs an image at most.", show_default=False)] = None,
    min_throughput: Annotated[str | None, typer.Option(metavar="30", help="Images/s at least.", show_default=False)] = None,
    min_quality: Annotated[str | None, typer.Option(metavar="0.7", help="mIoU at least.", show_default=False)] = None,
    maximize: Annotated[str, typer.Option(metavar="throughput|miou", help="What stands first.")] = "throughput",
    format: Annotated[FormatName, typer.Option("--format", "-f", help="How to write it.")] = FormatName.table,
    store: StoreOption = STORE,
) -> None:
    """Say which measured pairings to choose within given limits, with the code that builds each, and what limits the choice.

    A limit holds for the whole interval of what was measured. Exit status 1: no pairing fits.
    """
    from zoo.benchmark.facts import quantity
    from zoo.benchmark.recommend import LIMITS
    from zoo.benchmark.recommend import recommend as recommend_of
    from zoo.benchmark.recommend_formats import document

    given = {
        "max_latency": max_latency,
        "max_memory": max_memory,
        "max_parameters": max_parameters,
        "max_flops": max_flops,
        "min_throughput": min_throughput,
        "min_quality": min_quality,
    }
    limits = {
        name: quantity(LIMITS[name], text, f"--{name.replace('_', '-')}") for name, text in given.items() if text is not None
    }
    with opened_store(store) as opened:
        found = recommend_of(
            _table(opened, runs),
            device=device,
            mode=mode.value,
            batch=batch,
            size=None if size is None else _size(size),
            dtype=dtype,
            maximize=maximize,
            **limits,
        )
        _show(document(found), format, None, store)
    if not found.fits:
        raise typer.Exit(1)


def _table(opened: Store, runs: Sequence[str] | None) -> Table:
    from zoo.benchmark.selection import chosen_runs
    from zoo.benchmark.table import table_of

    return table_of(opened, *chosen_runs(opened, runs or []))


def _show(shown: Document, form: FormatName, output: Path | None, store: Path) -> None:
    if output is not None:
        check_writable(output)
    show_table(shown, form, output, kept=f"The results are in {store}.")


def _share(text: str) -> float:
    """Return "5%" or "0.05" as a share; "5" could mean either."""
    from zoo.benchmark.facts import quantity

    share = quantity("ratio", text, "--fail-if-slower")
    if share < 0 or (share >= 1 and "%" not in text):
        raise OptionError(f"--fail-if-slower {text}: give a share of the time, such as 5% or 0.05.")
    return share


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9})(?:[xX]([0-9]{1,9}))?", text.strip())
    if match is None:
        raise OptionError(f"--size {text}: a size is HEIGHTxWIDTH, such as 256x320, or one number for a square.")
    return int(match[1]), int(match[2] or match[1])
