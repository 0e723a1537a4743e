"""timm's architectures as encoders, listed from a shipped index, so that neither timm nor torch is imported to list them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import zoo
from zoo_timm.index import Architecture, index

SOURCE = "timm (Wightman, huggingface/pytorch-image-models)"
LICENCE = "Apache-2.0"
CHANGES_OUTPUT = frozenset({"feature_cfg", "feature_cls", "features_only", "out_indices", "output_fmt"})
"""Keywords of timm's for which maps are returned and how: the plan chooses these."""
GIVEN_BY_ZOO = frozenset(
    {"cache_dir", "checkpoint_path", "in_chans", "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"}
)
"""Keywords of timm's for what `zoo.build` has keywords of its own: in_channels, classes, weights."""


@zoo.hookimpl
def zoo_encoders() -> Iterator[zoo.EncoderSpec]:
    """Yield every architecture of timm."""
    for name, tags in index().tags.items():
        yield zoo.EncoderSpec(
            name=name,
            factory="zoo_timm.encoder:TimmEncoder",
            pyramid=partial(_pyramid, name),
            sizes=partial(_sizes, name),
            output_strides=partial(_output_strides, name),
            constants={"architecture": name},
            weights=("default",),
            tags=tags,
            source=SOURCE,
            licence=LICENCE,
        )


def _pyramid(name: str, **options: Any) -> zoo.Pyramid:
    if changing := sorted(CHANGES_OUTPUT.intersection(options)):
        raise zoo.OptionError(f"timm:{name}: {changing[0]!r} is no encoder option; the plan chooses the maps.")
    if given := sorted(GIVEN_BY_ZOO.intersection(options)):
        raise zoo.OptionError(
            f"timm:{name}: {given[0]!r} is no encoder option; zoo.build has in_channels, classes and weights for it."
        )
    architecture = index()[name]
    coarsest = options.get("output_stride", 32)
    if coarsest not in (32, *architecture.output_strides):
        able = ", ".join(map(str, architecture.output_strides))
        raise zoo.OptionError(
            f"timm:{name} cannot be dilated to output_stride={coarsest!r}; "
            + (f"it can to {able}." if able else "it has no such option. Leave it out, or choose another encoder.")
        )
    if "output_stride" not in options:
        return architecture.pyramid
    return tuple(replace(entry, stride=min(entry.stride, coarsest)) for entry in architecture.pyramid)


def _sizes(name: str, **options: Any) -> zoo.ImageSizes:
    """Return the sizes it takes; timm's own `img_size` and `dynamic_img_size` are heeded."""
    architecture: Architecture = index()[name]
    sizes, size = architecture.sizes, options.get("img_size")
    if architecture.is_dynamic and options.get("dynamic_img_size") is False:
        sizes = replace(sizes, fixed=architecture.size)
    if size is None:
        return sizes
    made_for = (size, size) if isinstance(size, int) else tuple(size)
    return replace(sizes, fixed=None if sizes.fixed is None else made_for, adapts=False)


def _output_strides(name: str, **_: Any) -> tuple[int, ...]:
    return index()[name].output_strides
