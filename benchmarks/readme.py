"""Put the measured tables into the README and the docs: `python benchmarks/readme.py`, once `benchmarks/results/` has changed.

Between `<!-- table: PATH -->` and `<!-- /table -->` go the titles and rows of that file, without the notes below them. Between
`<!-- summary: PATH -->` and `<!-- /summary -->` go a few columns of the baseline and three pairings, from a table in JSON.
Where there is no such file, the place stays empty.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Rewrite the pages that have such tables."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = page.read_text(encoding="utf-8")
        page.write_text(with_tables(text, ROOT), encoding="utf-8")


def with_tables(text: str, root: Path) -> str:
    """Return a page with the tables that its markers name."""
    for name, make in (("table", tables), ("summary", summary)):
        pattern = rf"(<!-- {name}: (\S+) -->\n).*?(<!-- /{name} -->)"
        text = re.sub(pattern, lambda match, make=make: match[1] + make(root / match[2]) + match[3], text, flags=re.DOTALL)
    return text


def tables(results: Path) -> str:
    """Return a results file without its notes, "" if there is none."""
    if not results.exists():
        return ""
    paragraphs = results.read_text(encoding="utf-8").strip().split("\n\n")
    return "\n\n".join(paragraph for paragraph in paragraphs if not paragraph.startswith("- ")).strip() + "\n"


def summary(results: Path) -> str:
    """Return four rows of a table in JSON with the columns that matter most, "" if there is none."""
    if not results.exists():
        return ""
    document = json.loads(results.read_text(encoding="utf-8"))
    run = document["runs"][0]
    lines = ["| pairing | CPU ms | time / baseline | mIoU |", "| --- | ---: | ---: | ---: |"]
    for row in document["rows"][:4]:
        ratio = "1 (baseline)" if row["is_baseline"] else interval(row, "ratio_to_baseline", 2) + " tie" * row["is_tie"]
        quality = f"{row['quality']:.3f} ±{row['quality_deviation']:.3f}"
        lines.append(f"| {row['pairing']} | {interval(row, 'latency_ms', 1)} | {ratio} | {quality} |")
    environment, seeds = run["environment"], document["rows"][0]["quality_seeds"]
    return "\n".join(lines) + (
        f"\n\n{environment['device_name']}, {environment['threads']} threads, one image of 256x256, {run['started'][:10]}. mIoU on "
        f"`{document['rows'][0]['quality_data']}` after {run['config']['quality']['budget']} steps from random weights, mean and deviation of "
        f"{seeds} seeds. In brackets: 95 % intervals. Reproduce it with `zoo bench configs/quality.yaml`.\n"
    )


def interval(row: dict[str, float], name: str, digits: int) -> str:
    """Return a number and its interval."""
    return f"{row[name]:.{digits}f} [{row[f'{name}_low']:.{digits}f}, {row[f'{name}_high']:.{digits}f}]"


if __name__ == "__main__":
    main()
