"""The command that lists what a results store holds: runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.cli.answers import answer, console
from zoo.cli.application import app
from zoo.cli.console import StoreOption, opened_store
from zoo.common.choices import DEFAULT_STORE

if TYPE_CHECKING:
    from zoo.benchmark.store.records import StoredRun
    from zoo.benchmark.store.store import Store

__all__: list[str] = []


@app.command()
def runs(store: StoreOption = DEFAULT_STORE) -> None:
    """List the runs of a results store: when each began, how far it came, and what failed in it."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    from zoo.benchmark.table.document import told_device

    screen = console()
    drawn = RichTable(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1) if screen.width >= 100 else (0, 0))
    for heading, is_number in (
        ("run", True),
        ("name", False),
        ("started (UTC)", False),
        ("finished", False),
        ("device", False),
    ):
        drawn.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    drawn.add_column("trials", justify="right")
    drawn.add_column("failed", justify="right")
    with opened_store(store) as opened:
        for run in opened.runs():
            trials = [trial for trial in opened.trials(run.id) if trial.facts.get("role") != "control"]
            failed = sum(trial.error is not None for trial in trials)
            cells = [
                str(run.id),
                run.name,
                _moment(run.started),
                _how_far(opened, run),
                told_device(run.environment),
                str(len(trials)),
            ]
            drawn.add_row(
                *map(Text, cells), Text(str(failed), style="red" if failed else ""), style="" if run.finished else "yellow"
            )
    if drawn.row_count:
        screen.print(drawn)
    else:
        answer(f"{store} holds no run yet; `zoo bench CONFIG` measures one.")


def _moment(moment: str) -> str:
    """Return a stored moment as it is there, in UTC, to the minute."""
    return moment[:16].replace("T", " ")


def _how_far(store: Store, run: StoredRun) -> str:
    """Return when a run ended, or how many rounds it has done of the most that it may do, or how often it has trained."""
    from zoo.benchmark.quality import FLOORS
    from zoo.benchmark.rounds import plan_of

    if run.finished:
        return _moment(run.finished)
    groups = store.groups(run.id)
    going = next((group for group in groups if group.stopped is None), None)
    if groups and going is None and run.config.get("quality"):
        trained = sum(len(seeds) for subject, seeds in store.qualities(run.id).items() if subject not in FLOORS)
        return f"so far: all rounds, {trained} training{'' if trained == 1 else 's'}"
    if going is None:
        return "so far: no rounds"
    done = sum(group.stopped is not None for group in groups)
    return f"so far: group {done + 1} of {len(groups)}, round {going.rounds} of {plan_of(run.config).maximum}"
