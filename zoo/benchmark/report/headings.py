"""Render the head of the report: a summary, and for each run a card with its machine and configuration. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from pathlib import PurePath
from typing import Any

from zoo.benchmark.quality import format_budget
from zoo.benchmark.store.records import StoredRun
from zoo.benchmark.table.table import Table

__all__ = ["definition_list", "render_run", "summarize"]


def summarize(table: Table) -> str:
    """Return a summary as text: the numbers of models, rows and runs, and the number of rows with each result.

    A row's result is that it is faster than the baseline, is slower, ties with the baseline, or failed.
    """
    counts = [_count(len({row.name for row in table.rows}), "model"), _count(len(table.rows), "row")]
    if len(table.runs) > 1:
        counts.append(_count(len(table.runs), "run"))
    sentences = [", ".join(counts)]
    ratios = [row.ratio for row in table.rows if row.ratio and not row.is_baseline and not row.error]
    if ratios:
        ties = sum(ratio.is_tie for ratio in ratios)
        faster = sum(ratio.high < 1 and not ratio.is_tie for ratio in ratios)
        slower = len(ratios) - faster - ties
        sentences.append(f"{faster:,} faster than the baseline, {slower:,} slower, {ties:,} tied")
    sentences.append(f"{sum(bool(row.error) for row in table.rows):,} failed")
    return ". ".join(sentences) + "."


def definition_list(entries: Iterable[tuple[str, str]]) -> str:
    """Return terms and their definitions as HTML."""
    pairs = (f"<div><dt>{escape(term)}</dt><dd>{escape(definition)}</dd></div>" for term, definition in entries)
    return f"<dl>{''.join(pairs)}</dl>"


def render_run(run: StoredRun) -> str:
    """Return the card of a run as HTML: the machine, the time and the configuration."""
    facts = {**_describe_machine(run), **_describe_config(run.config)}
    return f"""<article class="run" aria-label="Run {run.id}">
<h2>Run {run.id}: <span class="name">{escape(run.name)}</span></h2>
{definition_list((name, fact) for name, fact in facts.items() if fact)}
<details><summary>All versions, and the configuration</summary>
{definition_list(run.environment["versions"].items())}
<pre tabindex="0">{escape(json.dumps(run.config, indent=1, ensure_ascii=False))}</pre></details>
</article>"""


def _describe_machine(run: StoredRun) -> dict[str, str]:
    """Return a mapping from labels to texts about the machine and the time of a run. Empty texts are not shown."""
    facts, versions = run.environment, run.environment["versions"]
    packages = ("torch", "timm", "segmentation-zoo")
    return {
        "device": f"{facts['device_name']} ({facts['device']})",
        "processor": facts["processor"] if facts["processor"] != facts["device_name"] else "",
        "threads": f"{_count(facts['threads'], 'thread')} of {_count(facts['cores'], 'core')}",
        "memory": f"{facts['memory_gib']:g} GiB",
        "driver": facts["driver"],
        "system": f"{facts['system']}, Python {facts['python']}",
        "versions": ", ".join(f"{name} {versions[name]}" for name in packages if name in versions),
        "commit": facts["commit"],
        "measured": _format_period(run),
    }


def _describe_config(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a mapping from labels to texts about a run's configuration. The usual memory format and runtime are left out."""
    sides = [side if isinstance(side, list) else (side, side) for side in config["size"]]
    rounds, quality = config["rounds"], config.get("quality")
    if isinstance(rounds, Mapping):
        rounds_fact = f"{rounds['min']} to {rounds['max']}, until ratios are known to ±{100 * rounds['target']:g} %"
    else:
        rounds_fact = f"{rounds} each"
    facts = {
        "modes": ", ".join(config["modes"]),
        "batch": ", ".join(map(str, config["batch"])),
        "size": ", ".join(f"{height}x{width}" for height, width in sides),
        "dtype": ", ".join(config["dtype"]),
        "memory format": ", ".join(config["memory_format"]),
        "runtime": ", ".join(config["runtime"]),
        "input": {"image": "a photograph", "random": "random pixels"}[config["input"]],
        "rounds": rounds_fact,
    }
    if quality:
        task = PurePath(quality["data"]["source"]).name
        facts["quality"] = f"{task}, {format_budget(quality, ())}, {quality['seeds']} seeds"
    return {name: fact for name, fact in facts.items() if fact not in ("contiguous", "eager")}


def _format_period(run: StoredRun) -> str:
    """Return the start and the end of a run in UTC, as text."""
    started = datetime.fromisoformat(run.started)
    if run.finished is None:
        return f"{started:%Y-%m-%d %H:%M} UTC, not finished"
    finished = datetime.fromisoformat(run.finished)
    date = "" if finished.date() == started.date() else f"{finished:%Y-%m-%d} "
    return f"{started:%Y-%m-%d %H:%M} to {date}{finished:%H:%M} UTC"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
