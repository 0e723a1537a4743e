"""Put the tables of `benchmarks/results/` into the README and the docs: `python benchmarks/readme.py`.

Between `<!-- table: PATH -->` and `<!-- /table -->`, the script inserts the titles and rows of the file PATH, without the notes
below them. Between `<!-- summary -->` and `<!-- /summary -->`, it inserts a row for each ResNet18 pairing, with the speed from
resnet18-cpu.json and the mIoU from quality-cpu.json. If a required file does not exist, the text between the two markers is
removed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Rewrite what is between the markers, in all pages."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = page.read_text(encoding="utf-8")
        page.write_text(with_tables(text, ROOT), encoding="utf-8")


def with_tables(text: str, root: Path) -> str:
    """Return the text of a page, with the current tables in place of everything between the markers."""
    table = r"(<!-- table: (\S+) -->\n).*?(<!-- /table -->)"
    text = re.sub(table, lambda match: match[1] + tables(root / match[2]) + match[3], text, flags=re.DOTALL)
    summary = r"(<!-- summary -->\n).*?(<!-- /summary -->)"
    return re.sub(summary, lambda match: match[1] + summarize(root / "benchmarks/results") + match[2], text, flags=re.DOTALL)


def tables(results: Path) -> str:
    """Return the text of a results file without the notes; "" if the file does not exist."""
    if not results.exists():
        return ""
    paragraphs = results.read_text(encoding="utf-8").strip().split("\n\n")
    return "\n\n".join(paragraph for paragraph in paragraphs if not paragraph.startswith("- ")).strip() + "\n"


def summarize(results: Path) -> str:
    """Return a table of the ResNet18 pairings, with latency and mIoU from two results files; "" if a file is missing."""
    paths = [results / "resnet18-cpu.json", results / "quality-cpu.json"]
    if not all(path.exists() for path in paths):
        return ""
    speed, quality = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    trained = {row["pairing"]: row for row in quality["rows"]}
    lines = ["| pairing | CPU ms | time / baseline | mIoU |", "| --- | ---: | ---: | ---: |"]
    for row in speed["rows"]:
        if row["mode"] == "inference":
            ratio = "1 (baseline)" if row["is_baseline"] else interval(row, "ratio_to_baseline", 2) + " tie" * row["is_tie"]
            miou = "{quality:.3f} ±{quality_deviation:.3f}".format(**trained[row["pairing"]])
            lines.append(f"| {row['pairing']} | {interval(row, 'latency_ms', 1)} | {ratio} | {miou} |")
    return "\n".join(lines) + f"\n\n{conditions(speed, quality)}\n"


def conditions(speed: dict[str, Any], quality: dict[str, Any]) -> str:
    """Return the conditions of the measurements, as two sentences for a caption."""
    run, row = speed["runs"][0], quality["rows"][0]
    environment = run["environment"]
    steps = quality["runs"][0]["config"]["quality"]["budget"]
    device = f"{environment['device_name']}, {environment['threads']} threads"
    return (
        f"Speed: one image of 256x256 on {device}, {run['started'][:10]}, median and 95 % interval (`make bench`).\n"
        f"Quality: `{row['quality_data']}`, {steps} steps from random weights, mean and standard deviation of "
        f"{row['quality_seeds']} seeds (`zoo bench configs/quality.yaml`)."
    )


def interval(row: dict[str, float], name: str, digits: int) -> str:
    """Return a number of a row and its 95 % interval as text."""
    return f"{row[name]:.{digits}f} [{row[f'{name}_low']:.{digits}f}, {row[f'{name}_high']:.{digits}f}]"


if __name__ == "__main__":
    main()
