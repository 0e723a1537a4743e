"""The command `zoo compare`: show what changed from one run to another."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from zoo.cli.answers import note
from zoo.cli.application import app, fail
from zoo.cli.console import SUFFIXES, FormatOption, OutputOption, StoreOption, choose_format, opened_store, show_results
from zoo.common.choices import DEFAULT_STORE
from zoo.errors import OptionError

__all__: list[str] = []


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The earlier run: a number or a name.", show_default=False)],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The later run.", show_default=False)],
    by: Annotated[
        Literal["ratio", "latency"] | None,
        typer.Option(
            help="'ratio': compare the times divided by the baseline's time, so that the machine's speed cancels out. "
            "'latency': compare the times themselves.",
            show_default="ratio, if both runs have the baseline",
        ),
    ] = None,
    different_devices: Annotated[
        bool, typer.Option("--different-devices", help="Also compare runs from different devices.")
    ] = False,
    fail_if_slower: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Exit with status 1 if any trial is slower by more than this share, such as 5%.",
            show_default=False,
        ),
    ] = None,
    format: FormatOption = None,
    output: OutputOption = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Compare two runs trial by trial: what became slower or faster, what changed in size, what fails now.

    With --fail-if-slower, the exit status is 1 if a trial is slower by more than SHARE (even at the lower end of the 95 %
    interval), or if a trial fails in RUN_B only.
    """
    from zoo.benchmark.analysis.compare import compare as compare_runs
    from zoo.benchmark.analysis.compare_document import document, format_trial
    from zoo.benchmark.analysis.selection import select_runs
    from zoo.benchmark.trial import format_block

    form = choose_format(format, output, SUFFIXES)
    share = None if fail_if_slower is None else _share(fail_if_slower)
    with opened_store(store) as opened:
        (before,), (after,) = select_runs(opened, [run_a]), select_runs(opened, [run_b])
        comparison = compare_runs(opened, before, after, by=by, anywhere=different_devices)
        show_results(document(comparison), form, output, store)
    if share is None:
        return
    if slower := comparison.slower_than(share):
        lines = (f"  {format_trial(each.trial)}, {format_block(each.trial.block)}: {each.quotient.format()}" for each in slower)
        fail("\n".join([f"Slower than --fail-if-slower {fail_if_slower} allows:", *lines]), 1)
    if failing := [each.trial for each in comparison.uncompared if each.outcome == "fails now"]:
        lines = (f"  {format_trial(trial)}, {format_block(trial.block)}" for trial in failing)
        fail("\n".join([f"Failing in {run_b}, but not in {run_a}:", *lines]), 1)
    note(f"None of {len(comparison.judged)} trials is slower by more than {fail_if_slower}.")


def _share(text: str) -> float:
    """Return a share such as "5%" or "0.05" as a number. Refuse "5", which could mean 5% or 500%."""
    from zoo.benchmark.analysis.facts import FACTS

    share, _ = FACTS["ratio"].parse(text, "--fail-if-slower")
    if share < 0 or (share >= 1 and "%" not in text):
        raise OptionError(f"--fail-if-slower {text}: give a share of the time, such as 5% or 0.05.")
    return share
