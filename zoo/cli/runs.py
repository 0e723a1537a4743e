"""The command `zoo runs`: list the runs in a results store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.cli.answers import answer, show_parts
from zoo.cli.application import app
from zoo.cli.console import StoreOption, opened_store
from zoo.common.choices import DEFAULT_STORE

if TYPE_CHECKING:
    from zoo.benchmark.store.records import StoredRun
    from zoo.benchmark.store.store import Store

__all__: list[str] = []


@app.command()
def runs(store: StoreOption = DEFAULT_STORE) -> None:
    """List the runs in a results store: when each started, how far it got, and how many of its trials failed."""
    from zoo.benchmark.environment import format_device
    from zoo.common.grid import Grid, GridRow, Heading

    headings = (
        Heading(text="run", is_number=True),
        *(Heading(text=text) for text in ("name", "started (UTC)", "finished")),
        Heading(text="device", can_wrap=True),
        Heading(text="trials", is_number=True),
        Heading(text="failed", is_number=True),
    )
    rows = []
    with opened_store(store) as opened:
        for run in opened.runs():
            trials = [trial for trial in opened.trials(run.id) if trial.trial.role != "control"]
            num_failed = sum(trial.error is not None for trial in trials)
            cells = (
                str(run.id),
                run.name,
                _format_time(run.started),
                _format_progress(opened, run),
                format_device(run.environment),
                str(len(trials)),
                str(num_failed),
            )
            styles = ("", "", "", "", "", "", "red" if num_failed else "")
            rows.append(GridRow(cells=cells, styles=styles, style="" if run.finished else "yellow"))
    if rows:
        show_parts(Grid(headings=headings, sections=(tuple(rows),)))
    else:
        answer(f"{store} contains no run yet; `zoo bench CONFIG` measures one.")


def _format_time(time: str) -> str:
    """Return a stored time (UTC) as text, without the seconds."""
    return time[:16].replace("T", " ")


def _format_progress(store: Store, run: StoredRun) -> str:
    """Return the time when a run finished. If the run is unfinished, return its progress.

    The progress is the number of the group of trials that is being measured, and how many rounds of this group are done. After
    all rounds, it is the number of models that were trained, counted once for each seed.
    """
    from zoo.benchmark.quality import FLOORS
    from zoo.benchmark.rounds import plan_of

    if run.finished:
        return _format_time(run.finished)
    groups = store.groups(run.id)
    unfinished = next((group for group in groups if group.stopped is None), None)
    if groups and unfinished is None and run.config.get("quality"):
        # Models are trained after all rounds. The trivial baselines in FLOORS have scores, but are not trained.
        trained = sum(len(seeds) for subject, seeds in store.qualities(run.id).items() if subject not in FLOORS)
        return f"so far: all rounds, {trained} training{'' if trained == 1 else 's'}"
    if unfinished is None:
        return "so far: no rounds"
    num_finished = sum(group.stopped is not None for group in groups)
    maximum = plan_of(run.config).maximum
    return f"so far: group {num_finished + 1} of {len(groups)}, round {unfinished.rounds} of {maximum}"
