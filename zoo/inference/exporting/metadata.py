"""Collect the metadata of an exported file: the pairing, the preprocessing, the class names and the licenses."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from zoo.common.options import plain
from zoo.model.model import SegmentationModel
from zoo.registry.image_sizes import Size

__all__ = ["facts_of"]


def facts_of(model: SegmentationModel, *, size: Size | None, open_batch: bool, normalizes: bool) -> dict[str, str]:
    """Return the metadata as text. Values that consist of several parts are JSON."""
    pairing, preprocessing = model.pairing, model.preprocessing
    height, width = ("H", "W") if size is None else size
    batch = "N" if open_batch else "1"
    low, high = preprocessing.value_range
    if not normalizes:
        pixels = f"pixels in {low:g} to {high:g}, minus the mean, divided by the standard deviation (see preprocessing)"
    elif model.value_range is None:
        pixels = "pixels in 0 to 1, which the file normalizes itself"
    else:
        pixels = "pixels in the units of the training images (see value_range), which the file scales and normalizes itself"
    return {
        "version": version("segmentation-zoo"),
        "encoder": pairing.encoder,
        "decoder": pairing.decoder,
        "pairing": _json(pairing.as_dict()),
        "input": f"({batch}, {pairing.in_channels}, {height}, {width}), float32: {pixels}",
        "output": f"({batch}, {pairing.classes}, {height}, {width}), float32: logits",
        "size": "any" if size is None else f"{size[0]}x{size[1]}",
        "normalization": "inside" if normalizes else "outside",
        "preprocessing": _json(asdict(preprocessing)),
        "value_range": _json(model.value_range),
        "class_names": _json(model.class_names),
        "colors": _json(model.colors),
        "licenses": _json(asdict(model.licenses)),
    }


def _json(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False)
