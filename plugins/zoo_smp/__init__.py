"""List the encoders and decoders of segmentation_models_pytorch (smp), without importing torch.

The encoders come from an index file that is shipped with this plugin, and the decoders from the table in `zoo_smp.listing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import zoo
from zoo_smp.index import Architecture, index
from zoo_smp.listing import DECODERS

OUTPUT_STRIDES = (8, 16)
OUTPUT_STRIDE = zoo.plugin.Option(
    name="output_stride",
    default=None,
    summary="8 or 16: dilated convolutions replace the last strides (not every encoder supports this)",
)


@zoo.plugin.hookimpl
def zoo_encoders() -> Iterator[zoo.plugin.EncoderSpec]:
    """Yield smp's own encoders. The encoders of timm, which smp calls `tu-NAME`, are available as `timm:NAME` instead."""
    for name, architecture in index().items():
        yield zoo.plugin.EncoderSpec(
            name=name,
            factory="zoo_smp.encoder:smp_encoder",
            pyramid=partial(_pyramid, name),
            options=(OUTPUT_STRIDE,),
            constants={"architecture": name},
            output_strides=OUTPUT_STRIDES if architecture.dilates else (),
            weights=architecture.weights,
            source=architecture.source,
            license=architecture.license,
            weights_license=partial(_weights_license, name),
        )


@zoo.plugin.hookimpl
def zoo_decoders() -> Iterator[zoo.plugin.DecoderSpec]:
    """Yield the twelve decoders of smp's models."""
    yield from DECODERS


@zoo.plugin.hookimpl
def zoo_takeovers() -> dict[str, str]:
    """Return a mapping from the library's name to the function that converts its models, for `zoo.from_smp`."""
    return {"segmentation_models_pytorch": "zoo_smp.takeover:take_over"}


def _pyramid(name: str, /, output_stride: int | None = None) -> zoo.plugin.Pyramid:
    architecture: Architecture = index()[name]
    if output_stride not in (None, 32, *(OUTPUT_STRIDES if architecture.dilates else ())):
        able = "Choose 8 or 16." if architecture.dilates else "smp cannot dilate this encoder; leave the option out."
        raise zoo.errors.OptionError(f"smp:{name} cannot be built with output_stride={output_stride!r}. {able}")
    return architecture.pyramid(output_stride or 32)


def _weights_license(name: str, weights: str, /) -> str:
    return index()[name].weights_license(weights)
