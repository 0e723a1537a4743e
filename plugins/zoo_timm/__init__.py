"""List timm's architectures as encoders.

Their maps and image sizes come from an index file that is shipped with this plugin, so neither timm nor torch is imported. If
another version of timm is installed than the one that the file describes, `zoo_timm.index` imports timm to measure them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import zoo
from zoo_timm.index import Architecture, index, sides
from zoo_timm.packaged import PACKAGED, has_weights_file

SOURCE = "timm (Wightman, huggingface/pytorch-image-models)"
LICENSE = "Apache-2.0"
CHANGES_OUTPUT = frozenset({"feature_cfg", "feature_cls", "features_only", "out_indices", "output_fmt"})
"""timm's keywords that determine which maps are returned, and in which form. zoo refuses them, because the plan
chooses the maps."""
CHANGES_MAPS = frozenset(
    {"channels", "depth", "depths", "dims", "embed_dim", "embed_dims", "layers", "patch_size", "strides", "width_factor"}
)
"""timm's keywords that change the channels or strides of the maps. zoo refuses them. If another keyword changes
them, `zoo_timm.encoder` raises an error when it has built the network."""
GIVEN_BY_ZOO = frozenset(
    {"cache_dir", "checkpoint_path", "in_chans", "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"}
)
"""timm's keywords that zoo refuses, because arguments of `zoo.build` replace them: in_channels, classes and weights."""


@zoo.plugin.hookimpl
def zoo_encoders() -> Iterator[zoo.plugin.EncoderSpec]:
    """Yield every architecture of timm."""
    for name, tags in index().tags.items():
        yield zoo.plugin.EncoderSpec(
            name=name,
            factory="zoo_timm.encoder:TimmEncoder",
            pyramid=partial(_pyramid, name),
            sizes=partial(_sizes, name),
            output_strides=partial(_output_strides, name),
            constants={"architecture": name, "tag": None},
            weights=(("default",) if tags else ()) + (("packaged",) if name in PACKAGED else ()),
            tags=tags,
            source=SOURCE,
            license=LICENSE,
            weights_license=partial(_weights_license, name),
            local_weights=partial(_has_local_weights, name, tags),
        )


def _pyramid(name: str, /, **options: Any) -> zoo.plugin.Pyramid:
    if changing := sorted(CHANGES_OUTPUT.intersection(options)):
        raise zoo.errors.OptionError(f"timm:{name}: {changing[0]!r} is not an encoder option; the plan chooses the maps.")
    if changing := sorted(CHANGES_MAPS.intersection(options)):
        raise zoo.errors.OptionError(
            f"timm:{name} does not accept {changing[0]!r}, which would change its feature maps; zoo uses the default maps of "
            "each architecture. Choose another architecture, or register your own encoder."
        )
    if given := sorted(GIVEN_BY_ZOO.intersection(options)):
        raise zoo.errors.OptionError(
            f"timm:{name}: {given[0]!r} is not an encoder option. Use in_channels, classes or weights of zoo.build."
        )
    architecture = index()[name]
    coarsest = options.get("output_stride")
    if coarsest is None:
        return architecture.pyramid
    if coarsest not in architecture.output_strides and not (coarsest == 32 and architecture.output_strides):
        able = ", ".join(map(str, architecture.output_strides))
        raise zoo.errors.OptionError(
            f"timm:{name} cannot be dilated to output_stride={coarsest!r}"
            + (f". Choose one of: {able}." if able else " or any other value. Leave the option out, or choose another encoder.")
        )
    return tuple(replace(entry, stride=min(entry.stride, coarsest)) for entry in architecture.pyramid)


def _sizes(name: str, /, **options: Any) -> zoo.plugin.ImageSizes:
    """Return the image sizes that an architecture accepts under timm's options `img_size` and `dynamic_img_size`."""
    architecture: Architecture = index()[name]
    sizes = architecture.sizes
    if architecture.is_dynamic and options.get("dynamic_img_size") is False:
        sizes = replace(sizes, fixed=architecture.size)
    if options.get("img_size") is None:
        return sizes
    made_for = sides(options["img_size"])
    if sizes.adapts and made_for != (able := sizes.holding(made_for)):
        raise zoo.errors.OptionError(
            f"timm:{name} cannot be built for img_size={made_for}, because this size does not fit its windows or patches. "
            f"Pass img_size={able}, or pass image_size={made_for} to zoo.build, which chooses a size that fits."
        )
    return replace(sizes, fixed=None if sizes.fixed is None else made_for, adapts=False)


def _output_strides(name: str, /, **_: Any) -> tuple[int, ...]:
    return index()[name].output_strides


def _has_local_weights(name: str, tags: tuple[str, ...], weights: str, /) -> bool:
    """Return whether the weights are in an installed package, or timm's own weights in the cache of huggingface_hub."""
    if weights == "packaged":
        return has_weights_file(name)
    from huggingface_hub import try_to_load_from_cache

    tag = tags[0] if weights == "default" else weights
    files = (try_to_load_from_cache(f"timm/{name}.{tag}", file) for file in ("model.safetensors", "pytorch_model.bin"))
    return any(isinstance(file, str) for file in files)


def _weights_license(name: str, weights: str, /) -> str:
    if weights == "packaged":
        return PACKAGED[name].license
    from zoo_timm.licenses import license_of_weights

    return license_of_weights(name, weights)
