"""What stands above the table: the title, a summary, and a card a run that says where and how it was measured. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from html import escape
from pathlib import PurePath
from typing import Any

from zoo.benchmark.quality import told_budget
from zoo.benchmark.store.records import StoredRun
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import Table

__all__ = ["run_cards", "summary_of", "title_of"]


def title_of(table: Table) -> str:
    """Return the runs' names, each once."""
    return ", ".join(dict.fromkeys(run.name for run in table.runs))


def summary_of(table: Table) -> str:
    """Return in a sentence what came of it."""
    rows, failed = table.rows, sum(bool(row.error) for row in table.rows)
    told = [_counted(len({row.name for row in rows}), "model"), _counted(len(rows), "row")]
    if len(table.runs) > 1:
        told.append(_counted(len(table.runs), "run"))
    compared = [row for row in rows if row.ratio and not row.is_baseline and not row.error]
    ties = sum(bool(row.ratio and row.ratio.is_tie) for row in compared)
    faster = sum(_is_faster(row) for row in compared)
    slower = len(compared) - faster - ties
    verdict = (
        f"{_told(faster, 'None')} faster than the baseline, {_told(slower)} slower, {_told(ties)} tied" if compared else ""
    )
    sentences = [", ".join(told), verdict, f"{_told(failed, 'None')} failed"]
    return ". ".join(sentence for sentence in sentences if sentence) + "."


def run_cards(table: Table) -> str:
    """Return the runs, one below or beside the other."""
    return f'<div class="runs">{"".join(_card(run) for run in table.runs)}</div>'


def _is_faster(row: Row) -> bool:
    return bool(row.ratio and not row.ratio.is_tie and row.ratio.high < 1)


def _card(run: StoredRun) -> str:
    facts = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in [*_where(run), *_what(run.config)] if value
    )
    versions = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(version))}</dd></div>"
        for name, version in run.environment.get("versions", {}).items()
    )
    asked = escape(json.dumps(run.config, indent=1, ensure_ascii=False))
    return f"""<article class="run" aria-label="Run {run.id}">
<h2>Run {run.id}: <span class="name">{escape(run.name)}</span></h2>
<dl>{facts}</dl>
<details><summary>All versions, and the configuration</summary>
<dl class="versions">{versions}</dl>
<pre tabindex="0">{asked}</pre></details>
</article>"""


def _where(run: StoredRun) -> list[tuple[str, str]]:
    """Return where and when; what an older run did not record is left out."""
    environment = run.environment
    device, name = str(environment.get("device", "")), str(environment.get("device_name", ""))
    processor = str(environment.get("processor", ""))
    threads, memory = environment.get("threads"), environment.get("memory_gib")
    cores = f"{_counted(threads, 'thread')} of {_counted(environment.get('cores'), 'core')}" if threads else ""
    return [
        ("device", f"{name} ({device})"),
        ("processor", processor if processor != name else ""),
        ("threads", cores),
        ("memory", f"{memory:g} GiB" if isinstance(memory, int | float) else ""),
        ("driver", str(environment.get("driver", ""))),
        ("system", ", Python ".join(str(environment[key]) for key in ("system", "python") if environment.get(key))),
        ("versions", ", ".join(_versions(environment))),
        ("commit", str(environment.get("commit", ""))),
        ("measured", _when(run)),
    ]


def _what(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    sizes = [f"{side[0]}x{side[1]}" if isinstance(side, list | tuple) else f"{side}x{side}" for side in config.get("size", ())]
    return [
        ("modes", _listed(config, "modes")),
        ("batch", _listed(config, "batch")),
        ("size", ", ".join(sizes)),
        ("dtype", _listed(config, "dtype")),
        ("memory format", _listed(config, "memory_format", usual="contiguous")),
        ("runtime", _listed(config, "runtime", usual="eager")),
        (
            "input",
            {"image": "a photograph", "random": "random pixels"}.get(str(config.get("input")), str(config.get("input", ""))),
        ),
        ("rounds", _rounds(config.get("rounds"))),
        ("quality", _quality(config.get("quality"))),
    ]


def _versions(environment: Mapping[str, Any]) -> list[str]:
    versions = environment.get("versions", {})
    return [f"{name} {versions[name]}" for name in ("torch", "timm", "segmentation-zoo") if name in versions]


def _listed(config: Mapping[str, Any], key: str, usual: str = "") -> str:
    told = ", ".join(map(str, config.get(key, ())))
    return "" if told == usual else told


def _rounds(rounds: Any) -> str:
    if isinstance(rounds, Mapping):
        return f"{rounds['min']} to {rounds['max']}, until ratios are known to ±{100 * rounds['target']:g} %"
    return "" if rounds is None else f"{rounds} each"


def _quality(asked: Any) -> str:
    if not asked:
        return ""
    return f"{PurePath(asked['data']['source']).name}, {told_budget(asked, ())}, {asked['seeds']} seeds"


def _when(run: StoredRun) -> str:
    """Return the day and the hours, in UTC as the store keeps them."""
    try:
        started = datetime.fromisoformat(run.started)
        finished = datetime.fromisoformat(run.finished) if run.finished else None
    except ValueError:
        return f"{run.started} to {run.finished or 'now, and not finished'}"
    told = f"{started:%Y-%m-%d %H:%M}"
    if finished is None:
        return f"{told} UTC, not finished"
    last = f"{finished:%H:%M}" if finished.date() == started.date() else f"{finished:%Y-%m-%d %H:%M}"
    return f"{told} to {last} UTC"


def _told(number: int, none: str = "none") -> str:
    return f"{number:,}" if number else none


def _counted(number: Any, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}" if isinstance(number, int) else f"? {noun}s"
