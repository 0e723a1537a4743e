"""The page's fixed part: head, where it was measured, warnings, failures and notes, readable without scripts. Torch-free."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from zoo.benchmark.report.headings import run_cards, summary_of, title_of
from zoo.benchmark.report.payload import block_labels, json_for_script, payload_of, shared_facts
from zoo.benchmark.table.columns import chosen_columns
from zoo.benchmark.table.document import intervals_note, peak_legend, quality_notes
from zoo.benchmark.table.rows import Check, Row
from zoo.benchmark.table.table import Table

__all__ = ["page_of"]

SCRIPTS = ("page.js", "table.js", "pairings.js", "plots.js")
"""Joined into one function in this order, so that they share names with one another and with nothing else."""

STYLES = ("page.css", "table.css", "parts.css", "paper.css")
"""Joined in this order: what comes later wins."""

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M2 12h9M2 8h12M2 4h5' "
    "stroke='%230072b2' stroke-width='2.5' stroke-linecap='round'/%3E%3C/svg%3E"
)
MANY = 5
"""So many warnings or failures are shown open; more are folded away, below their number."""


def page_of(table: Table, *, plotly: str) -> str:
    """Return the whole page.

    Args:
        table: what it shows.
        plotly: the source of plotly.js.
    """
    own = "(() => {\n'use strict';\n" + "\n".join(_resource(name) for name in SCRIPTS) + "\n})();\n"
    title = escape(title_of(table))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(own, plotly)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}: benchmark report</title>
<link rel="icon" href="{ICON}">
<style>
{"".join(map(_resource, STYLES))}</style>
</head>
<body>
<a class="skip" href="#table">Skip to the table</a>
<header>
<p class="kicker">Benchmark report</p>
<h1>{title}</h1>
<p class="summary">{escape(summary_of(table))}</p>
{run_cards(table)}
{_contents(table)}
</header>
<main>
{_table_part(table)}
{PLOTS_PART}
{PAIRINGS_PART}
{_failures_part(table)}
{_notes_part(table)}
</main>
<footer><p>Made by <code>zoo report</code> from <span class="path">{escape(table.store)}</span>, which holds every sample.</p>
</footer>
<script type="application/json" id="data">{json_for_script(payload_of(table))}</script>
<script>{own}</script>
<script type="text/plain" id="plotly">{plotly}</script>
</body>
</html>
"""


def _resource(name: str) -> str:
    return files("zoo.benchmark.report").joinpath(name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    """Return what the browser is to allow: these very scripts, and nothing from anywhere else."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"


def _contents(table: Table) -> str:
    parts = [("table", "Table"), ("plots", "Plots"), ("pairings", "Pairings")]
    if any(row.error for row in table.rows):
        parts.append(("failures", "Failures"))
    links = "".join(f'<li><a href="#{name}">{told}</a></li>' for name, told in [*parts, ("notes", "How it was measured")])
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def _table_part(table: Table) -> str:
    shared = ", ".join(f"{column.heading} {cell}" for column, cell in shared_facts(table))
    told = f"<p>All rows: {escape(shared)}.</p>" if shared else ""
    return f"""<section aria-labelledby="table">
<h2 id="table" tabindex="-1">Table</h2>
{_warnings(table)}{told}
<noscript><p class="warning">The table, the plots and the plans are drawn by this page's own scripts: switch on JavaScript to
see them. Where it was measured, what failed and what the columns mean stands here without.</p></noscript>
<div id="controls" class="controls"></div>
<p class="status"><span id="status" role="status"></span> <span id="more"></span></p>
<div class="scroller" id="scroller" role="region" aria-label="Table of results" tabindex="0"></div>
{_floors(table)}{_legend(table)}
</section>"""


PLOTS_PART = """<section aria-labelledby="plots">
<h2 id="plots">Plots</h2>
<div id="plot-controls" class="controls"></div>
<figure id="plot-figure"><div id="plot" class="plot"></div><figcaption id="plot-caption"></figcaption></figure>
</section>"""

PAIRINGS_PART = """<section aria-labelledby="pairings">
<h2 id="pairings">Pairings</h2>
<p>The code that builds each, its plan, its parameters and all its rows.</p>
<div id="pairing-list"></div>
</section>"""


def _warnings(table: Table) -> str:
    off = [check for check in table.checks if check.is_off]
    if not off:
        return ""
    labels = block_labels(table)
    lines = "".join(f'<li class="warning">{_warning(check, labels)}</li>' for check in off)
    if len(off) <= MANY:
        return f'<ul class="warnings">{lines}</ul>'
    told = f"{len(off)} of {len(table.checks)} A/A checks are off: the small differences of their groups mean nothing."
    summary = f"<summary><strong>Warning:</strong> {told}</summary>"
    return f'<details class="warning">{summary}<ul class="warnings">{lines}</ul></details>'


def _warning(check: Check, labels: dict[tuple[object, ...], str]) -> str:
    measured = f", measured with {escape(', '.join(check.names))}," if check.names else ""
    return (
        f"<strong>Warning:</strong> {escape(labels.get(check.block, ''))}: the baseline against itself{measured} took "
        f"{check.ratio.told()} of its time. Its true ratio is 1, so differences this small mean nothing."
    )


def _floors(table: Table) -> str:
    """Return what is reached without any network, where quality was measured."""
    many = len({floor.run for floor in table.floors}) > 1
    told = "; ".join(f"{f'run {floor.run}, ' if many else ''}{floor.name} {floor.miou:.3f}" for floor in table.floors)
    return f"<p>mIoU without any network, which is to be beaten: {escape(told)}.</p>" if told else ""


def _legend(table: Table) -> str:
    """Return what the columns mean; the memory's meaning depends on where it was measured."""
    entries = []
    for column in chosen_columns(table.rows, "all"):
        legend = peak_legend(table) if column.name == "memory" else column.legend
        if legend:
            entries.append(f"<div><dt>{escape(column.heading)}</dt><dd>{escape(legend)}</dd></div>")
    bars = (
        "<div><dt>bars</dt><dd>the interval, with a tick at the median, on the scale below the heading; for ratios a line at "
        "1, and shaded the range in which a difference would be too small to matter</dd></div>"
        if any(row.latency for row in table.rows)
        else ""
    )
    return f'<details class="legend"><summary>What the columns mean</summary><dl>{"".join(entries)}{bars}</dl></details>'


def _failures_part(table: Table) -> str:
    failed = [(index, row) for index, row in enumerate(table.rows) if row.error]
    if not failed:
        return ""
    labels = block_labels(table)
    is_open = " open" if len(failed) <= MANY else ""
    entries = "\n".join(_failure(index, row, labels[row.block], is_open) for index, row in failed)
    return f"""<section aria-labelledby="failures">
<h2 id="failures">Failures</h2>
<p>{len(failed)} of {len(table.rows)} rows failed. Each kept its place in the table.</p>
{entries}
</section>"""


def _failure(index: int, row: Row, label: str, is_open: str) -> str:
    return f"""<details class="failure" id="failure-{index}"{is_open}>
<summary><span class="name">{escape(row.name)}</span> <span class="facts">{escape(label)}</span>
<span class="tag failed">{escape(row.failure or "error")}</span></summary>
<pre tabindex="0">{escape(row.error or "")}</pre>
</details>"""


def _notes_part(table: Table) -> str:
    lines = [
        intervals_note(table),
        "The rows of a block were measured interleaved, each compared with the baseline of the same rounds.",
        *(f"{note}." for note in quality_notes(table)),
        *(f"Best rate in {dtype}: {told}." for dtype, told in table.rates.items()),
    ]
    told = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"""<section aria-labelledby="notes">
<h2 id="notes">How it was measured</h2>
<ul>{told}</ul>
{_checks(table.checks, block_labels(table))}
</section>"""


def _checks(checks: Sequence[Check], labels: dict[tuple[object, ...], str]) -> str:
    if not checks:
        return ""
    rows = "".join(
        f"<tr><td>{escape(labels.get(check.block, ''))}</td><td class=number>{check.ratio.told()}</td>"
        f"<td>{'off' if check.is_off else 'fine'}</td><td class=names>{escape(', '.join(check.names))}</td></tr>"
        for check in checks
    )
    off = sum(check.is_off for check in checks)
    return f"""<details><summary>A/A checks: the baseline against itself, {len(checks)} in all, {off or "none"} off</summary>
<p>Measured as any two models are, the baseline should take its own time. Where the interval leaves 1, the group was
disturbed.</p>
<div class="scroller" role="region" aria-label="A/A checks" tabindex="0"><table class="plain">
<thead><tr><th scope="col">block</th><th scope="col" class="number">ratio</th><th scope="col">check</th>
<th scope="col">measured with</th></tr></thead>
<tbody>{rows}</tbody></table></div></details>"""
