"""Puts the measured tables into the README: `python benchmarks/readme.py`, after a run has written `benchmarks/results/`.

Each stands between `<!-- table: PATH -->` and `<!-- /table -->`: the title and the rows of that file, without its notes.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write the README anew."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    pattern = r"(<!-- table: (\S+) -->\n).*?(<!-- /table -->)"
    readme.write_text(re.sub(pattern, lambda found: found[1] + table(ROOT / found[2]) + found[3], text, flags=re.DOTALL))


def table(results: Path) -> str:
    """Return a results file up to its notes."""
    return results.read_text(encoding="utf-8").partition("\n\n- ")[0].strip() + "\n"


if __name__ == "__main__":
    main()
