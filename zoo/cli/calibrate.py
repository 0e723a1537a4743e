"""The command `zoo calibrate`: time a small set of pairings, so that the times of all others can be estimated."""

from __future__ import annotations

import statistics
from typing import Annotated

import typer

from zoo.cli.answers import answer
from zoo.cli.application import app
from zoo.cli.console import StoreOption
from zoo.common.choices import DEFAULT_STORE

__all__: list[str] = []


@app.command()
def calibrate(
    device: Annotated[
        str, typer.Option(help="auto (an accelerator if there is one, else cpu), cpu, cuda, cuda:1, ...")
    ] = "auto",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Time a small, varied set of pairings on a device, so that the times of all others can be estimated.

    This takes a few minutes, once for each device.
    """
    import zoo
    from zoo.benchmark.environment import format_device

    found = zoo.calibrate(device=device, store=store)
    model = found.model
    low, high = (statistics.median(ends) for ends in zip(*model.intervals, strict=True))
    errors = sorted(abs(1 / ratio - 1) for ratio in model.errors)
    answer(
        f"{format_device(found.run.environment)}: {len(errors)} pairings timed (run {found.run.id} of {store}).\n"
        f"Estimates of pairings that the fit did not use: median error {statistics.median(errors):.0%}, 90 % of the errors at "
        f"most {errors[int(0.9 * len(errors))]:.0%}.\n"
        f"Half of their 90 % intervals are within {low - 1:+.0%} to {high - 1:+.0%}."
    )
