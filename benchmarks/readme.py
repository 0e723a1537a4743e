"""Put the measured tables into the README and the docs: `python benchmarks/readme.py`, once `benchmarks/results/` has changed.

Each stands between `<!-- table: PATH -->` and `<!-- /table -->`: titles and rows of that file, without the notes below them.
Where there is no such file, nothing stands there.
"""

from __future__ import annotations

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
    pattern = r"(<!-- table: (\S+) -->\n).*?(<!-- /table -->)"
    return re.sub(pattern, lambda found: found[1] + tables(root / found[2]) + found[3], text, flags=re.DOTALL)


def tables(results: Path) -> str:
    """Return a results file without its notes, "" if there is none."""
    if not results.exists():
        return ""
    paragraphs = results.read_text(encoding="utf-8").strip().split("\n\n")
    return "\n\n".join(paragraph for paragraph in paragraphs if not paragraph.startswith("- ")).strip() + "\n"


if __name__ == "__main__":
    main()
