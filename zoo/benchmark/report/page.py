"""Render the report's page. Its warnings, legend, failures and notes are readable without scripts. Torch-free."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files

from zoo.benchmark.report.headings import definition_list, render_run, summarize
from zoo.benchmark.report.payload import block_labels, json_for_script, payload_of, shared_facts
from zoo.benchmark.table.columns import chosen_columns
from zoo.benchmark.table.notes import intervals_note, misses_by_chance, peak_legend, quality_notes
from zoo.benchmark.table.table import Table

__all__ = ["render_page"]

SCRIPTS = ("page.js", "table.js", "pairings.js", "plots.js")
"""The scripts, joined into one function in this order. Each can use the names of the others, but no name is global."""

STYLES = ("page.css", "table.css", "print.css")
"""The style sheets, joined in this order, so that later rules override earlier rules."""

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M2 12h9M2 8h12M2 4h5' "
    "stroke='%230072b2' stroke-width='2.5' stroke-linecap='round'/%3E%3C/svg%3E"
)
PLOTS = """<section aria-labelledby="plots">
<h2 id="plots">Plots</h2>
<div id="plot-controls" class="controls"></div>
<figure id="plot-figure"><div id="plot" class="plot"></div><figcaption id="plot-caption"></figcaption></figure>
</section>
"""
MAX_OPEN = 3
"""Up to this many warnings or failures are shown in full. If there are more, all of them are collapsed."""


def render_page(table: Table, *, plotly: str) -> str:
    """Return the HTML of the whole page.

    Args:
        table: the results to show.
        plotly: the source of plotly.js; "" for a page without plots, which is five megabytes smaller.
    """
    names = [name for name in SCRIPTS if plotly or name != "plots.js"]
    script = "(() => {\n'use strict';\n" + "\n".join(map(_read, names)) + "\n})();\n"
    title = escape(", ".join(dict.fromkeys(run.name for run in table.runs)))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_content_policy(script, plotly)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}: benchmark report</title>
<link rel="icon" href="{ICON}">
<style>
{"".join(map(_read, STYLES))}</style>
</head>
<body>
<a class="skip" href="#table">Skip to the table</a>
<header>
<p class="kicker">Benchmark report</p>
<h1>{title}</h1>
<p>{escape(summarize(table))}</p>
<div class="runs">{"".join(map(render_run, table.runs))}</div>
<nav aria-label="Contents">
<a href="#table">Table</a>
{'<a href="#plots">Plots</a>' if plotly else ""}
<a href="#pairings">Pairings</a>
{'<a href="#failures">Failures</a>' if any(row.error for row in table.rows) else ""}
<a href="#notes">How it was measured</a>
</nav>
</header>
<main>
{_render_table_section(table)}
{PLOTS if plotly else ""}<section aria-labelledby="pairings">
<h2 id="pairings">Pairings</h2>
<p>The code that builds each pairing, its plan, its parameters and all its rows.</p>
<div id="pairing-list"></div>
</section>
{_render_failures(table)}
{_render_notes(table)}
</main>
<footer><p>Made by <code>zoo report</code> from <bdi>{escape(table.store)}</bdi>, which contains every sample.</p>
</footer>
<script type="application/json" id="data">{json_for_script(payload_of(table))}</script>
<script>{script}</script>
{f'<script type="text/plain" id="plotly">{plotly}</script>' if plotly else ""}
</body>
</html>
"""


def _read(name: str) -> str:
    return files("zoo.benchmark.report").joinpath(name).read_text(encoding="utf-8")


def _content_policy(*scripts: str) -> str:
    """Return the content security policy that lets the browser run only these scripts, and load nothing from elsewhere."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"


def _render_table_section(table: Table) -> str:
    shared = ", ".join(f"{column.heading} {cell}" for column, cell in shared_facts(table))
    has_runs = len({floor.run for floor in table.floors}) > 1
    floors = "; ".join(f"{f'run {floor.run}, ' if has_runs else ''}{floor.name} {floor.miou:.3f}" for floor in table.floors)
    return f"""<section aria-labelledby="table">
<h2 id="table" tabindex="-1">Table</h2>
{_render_warnings(table)}{f"<p>All rows: {escape(shared)}.</p>" if shared else ""}
<noscript><p class="warning">The scripts of this page draw the table, the plots and the plans. Turn on JavaScript to see
them. The details of each run, the failures and the meaning of the columns are shown without JavaScript.</p></noscript>
<div id="controls" class="controls"></div>
<p class="status"><span id="status" role="status"></span> <span id="more"></span></p>
<div class="scroller" id="scroller" role="region" aria-label="Table of results" tabindex="0"></div>
{f"<p>mIoU without a neural network, which a model should exceed: {escape(floors)}.</p>" if floors else ""}
{_render_legend(table)}
</section>"""


def _render_warnings(table: Table) -> str:
    off = [check for check in table.checks if check.is_off]
    if not off:
        return ""
    labels = block_labels(table)
    lines = []
    for check in off:
        measured = f", measured with {', '.join(check.names)}," if check.names else ""
        text = (
            f"{labels[check.block]}: the second copy of the baseline{measured} took {check.ratio.format()} times as long as "
            "the baseline."
        )
        conclusion = "The true ratio is 1, so differences of this size mean nothing."
        lines.append(f'<p class="warning"><strong>Warning:</strong> {escape(text)} {conclusion}</p>')
    warnings = f'<div class="warnings">{"".join(lines)}</div>'
    if len(off) <= MAX_OPEN:
        return warnings
    expected = misses_by_chance(len(table.checks))
    summary = (
        f"{len(off)} of {len(table.checks)} A/A checks are off; by chance, at most about {expected} would be. Small "
        "differences in their groups mean nothing."
    )
    return f'<details class="warning"><summary><strong>Warning:</strong> {summary}</summary>{warnings}</details>'


def _render_legend(table: Table) -> str:
    columns = chosen_columns(table.rows, "all")
    entries = {column.heading: peak_legend(table) if column.name == "memory" else column.legend for column in columns}
    if any(row.latency for row in table.rows):
        entries["bars"] = (
            "the interval, with a tick at the median, on the scale below the heading; bars of ratios also have a line at 1, "
            "and a shaded range in which a difference would be too small to matter"
        )
    legend = definition_list((heading, legend) for heading, legend in entries.items() if legend)
    return f'<details class="legend"><summary>What the columns mean</summary>{legend}</details>'


def _render_failures(table: Table) -> str:
    failed = [(index, row) for index, row in enumerate(table.rows) if row.error]
    if not failed:
        return ""
    labels = block_labels(table)
    entries = "\n".join(
        f"""<details class="failure" id="failure-{index}"{" open" if len(failed) <= MAX_OPEN else ""}>
<summary><span class="name">{escape(row.name)}</span> <span class="facts">{escape(labels[row.block])}</span>
<span class="tag failed">{escape(row.failure or "error")}</span></summary>
<pre tabindex="0">{escape(row.error or "")}</pre>
</details>"""
        for index, row in failed
    )
    return f"""<section aria-labelledby="failures">
<h2 id="failures">Failures</h2>
<p>{len(failed)} of {len(table.rows)} rows failed. Each is still in the table.</p>
{entries}
</section>"""


def _render_notes(table: Table) -> str:
    notes = [
        intervals_note(table),
        "The rows of a block were measured in interleaved rounds. Each is compared with the baseline in the same rounds.",
        *(f"{note}." for note in quality_notes(table)),
        *(f"Best rate in {dtype}: {rate}." for dtype, rate in table.rates.items()),
    ]
    return f"""<section aria-labelledby="notes">
<h2 id="notes">How it was measured</h2>
<ul>{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>
{_render_checks(table) if table.checks else ""}
</section>"""


def _render_checks(table: Table) -> str:
    labels = block_labels(table)
    rows = "".join(
        f"<tr><td>{escape(labels[check.block])}</td><td class=number>{check.ratio.format()}</td>"
        f"<td>{'off' if check.is_off else 'fine'}</td><td class=names>{escape(', '.join(check.names))}</td></tr>"
        for check in table.checks
    )
    off = sum(check.is_off for check in table.checks) or "none"
    return f"""<details><summary>A/A checks: the baseline against itself, {len(table.checks)} in all, {off} off</summary>
<p>The baseline and its second copy are measured like two different models. The true ratio of their times is 1. If the
interval does not contain 1, something disturbed the group.</p>
<div class="scroller" role="region" aria-label="A/A checks" tabindex="0"><table class="plain">
<thead><tr><th scope="col">block</th><th scope="col" class="number">ratio</th><th scope="col">check</th>
<th scope="col">measured with</th></tr></thead>
<tbody>{rows}</tbody></table></div></details>"""
