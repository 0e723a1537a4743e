"""Writes index.json: every architecture of the installed timm with its maps' name, channels, stride, out_index and layout.

Run it when timm has a new version: `python -m zoo_timm.make_index` (four minutes; nothing is downloaded or computed).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch

INDEX = Path(__file__).with_name("index.json")


def describe(architecture: str) -> dict[str, Any]:
    """Return one architecture's maps as timm declares them, built on the meta device."""
    with torch.device("meta"):
        model: Any = timm.create_model(architecture, features_only=True, pretrained=False)
    info = model.feature_info
    names = info.module_name()
    if len(set(names)) < len(names):  # coat and crossvit give several maps from one module
        names = [f"{name}.{index}" for index, name in enumerate(names)]
    maps = [list(entry) for entry in zip(names, info.channels(), info.reduction(), info.out_indices, strict=True)]
    layout = getattr(model, "output_fmt", None)
    entry: dict[str, Any] = {"maps": maps}
    if layout is not None and str(layout.value) != "NCHW":
        entry["layout"] = str(layout.value)
    return entry


def main() -> None:
    """Write the index beside this file, one architecture a line."""
    architectures = {name: describe(name) for name in timm.list_models()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(architectures.items()))
    INDEX.write_text(f'{{"timm": {json.dumps(timm.__version__)},\n"architectures": {{\n{lines}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
