"""Look up the licenses that timm states for its pretrained weights.

The file licenses.json, which is shipped with this plugin, lists them for one version of timm. If another version is installed,
timm is imported to read them, and the result is cached. `python -m zoo_timm.licenses` rewrites the file for the installed timm,
which takes seconds. `zoo_timm.make_index` rewrites the file as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from zoo_timm.index import folder_of, read_or_ask

__all__ = ["license_of_weights", "write"]

SHIPPED = Path(__file__).with_name("licenses.json")

SPDX = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0 (non-commercial)",
    "mit": "MIT",
}
"""A mapping from timm's names of licenses to SPDX identifiers. A license that is not listed here keeps timm's name."""


def license_of_weights(architecture: str, weights: str) -> str:
    """Return the license of an architecture's weights, given their tag or "default"; "" if timm states none."""
    stated = _licenses().get(architecture, {}).get(weights, "")
    return SPDX.get(stated, stated)


def write() -> None:
    """Write the list next to this file, one architecture per line."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(tags)}" for name, tags in _ask_timm().items())
    SHIPPED.write_text(f'{{"timm": {json.dumps(version("timm"))},\n"licenses": {{\n{lines}\n}}}}\n', encoding="utf-8")


@cache
def _licenses() -> Mapping[str, Mapping[str, str]]:
    shipped = json.loads(SHIPPED.read_bytes())
    if shipped["timm"] == version("timm"):
        return shipped["licenses"]  # type: ignore[no-any-return]
    return read_or_ask(folder_of(version("timm")) / "licenses.json", _ask_timm)  # type: ignore[no-any-return]


def _ask_timm() -> dict[str, dict[str, str]]:
    """Return, for each architecture, a mapping from tags to licenses.

    "default" stands for the tag that timm uses if none is requested.
    """
    import timm

    licenses: dict[str, dict[str, str]] = {}
    for full in timm.list_pretrained():
        name, _, tag = full.partition(".")
        config = timm.get_pretrained_cfg(full)
        license = config.license if config else None
        if license and license != "unknown":
            licenses.setdefault(name, {})[tag] = license
    for name, tags in licenses.items():
        if (default := timm.get_pretrained_cfg(name)) and default.tag in tags:
            tags["default"] = tags[default.tag]
    return dict(sorted(licenses.items()))


if __name__ == "__main__":
    write()
