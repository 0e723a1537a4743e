"""timm's architectures as encoders, listed from a shipped index, so that neither timm nor torch is imported to list them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import zoo

SOURCE = "timm (Wightman, huggingface/pytorch-image-models)"
LICENCE = "Apache-2.0"
CHANGES_MAPS = frozenset({"feature_cfg", "feature_cls", "features_only", "out_indices", "output_fmt", "output_stride"})
"""Keywords of timm's that would make the declared maps untrue."""
GIVEN_BY_ZOO = frozenset(
    {"cache_dir", "checkpoint_path", "in_chans", "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"}
)
"""Keywords of timm's for what `zoo.build` has keywords of its own: in_channels, classes, weights."""


@zoo.hookimpl
def zoo_encoders() -> Iterator[zoo.EncoderSpec]:
    """Yield every architecture of the index; those that cannot be built yet say why when they are asked for."""
    for name, entry in architectures().items():
        yield zoo.EncoderSpec(
            name=name,
            factory="zoo_timm.encoder:TimmEncoder",
            pyramid=partial(_pyramid, name, entry),
            constants={"architecture": name},
            weights=("default",),
            source=SOURCE,
            licence=LICENCE,
        )


@cache
def architectures() -> dict[str, dict[str, Any]]:
    """Return the index: each architecture's maps, as lists of name, channels, stride and timm's out_index."""
    index = json.loads(Path(__file__).with_name("index.json").read_bytes())
    entries: dict[str, dict[str, Any]] = index["architectures"]
    return entries


def _pyramid(architecture: str, entry: dict[str, Any], **options: Any) -> zoo.Pyramid:
    if changing := sorted(CHANGES_MAPS.intersection(options)):
        raise zoo.OptionError(
            f"timm:{architecture} is paired with the maps it has by default; {changing[0]!r} would change them."
        )
    if given := sorted(GIVEN_BY_ZOO.intersection(options)):
        raise zoo.OptionError(
            f"timm:{architecture}: {given[0]!r} is no encoder option; zoo.build has in_channels, classes and weights for it."
        )
    if obstacle := _obstacle(entry):
        raise zoo.NegotiationError(f"timm:{architecture} is listed, and cannot be paired yet: {obstacle}.")
    return tuple(zoo.FeatureMap(name=name, channels=channels, stride=stride) for name, channels, stride, _ in entry["maps"])


def _obstacle(entry: dict[str, Any]) -> str | None:
    """Return why an architecture is listed only: its maps are no ladder of doubling strides in NCHW."""
    strides = [stride for _, _, stride, _ in entry["maps"]]
    if any(2 * fine != coarse for fine, coarse in pairwise(strides)):
        return f"its maps have strides {', '.join(map(str, strides))}, and no adapter for such a ladder exists"
    if entry.get("layout", "NCHW") != "NCHW":
        return f"its maps are {entry['layout']}, and nothing turns them into NCHW"
    return None
