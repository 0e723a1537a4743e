"""segmentation_models_pytorch's encoders and decoders, listed torch-free: an index for the one, a table for the other."""

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
    summary="8 or 16: dilated convolutions in place of the last strides (not of every encoder)",
)


@zoo.plugin.hookimpl
def zoo_encoders() -> Iterator[zoo.plugin.EncoderSpec]:
    """Yield every encoder that is smp's own; timm's, which smp has as `tu-NAME`, are `timm:NAME`."""
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
    """Return what `zoo.from_smp` calls."""
    return {"segmentation_models_pytorch": "zoo_smp.takeover:take_over"}


def _pyramid(name: str, /, output_stride: int | None = None) -> zoo.plugin.Pyramid:
    architecture: Architecture = index()[name]
    if output_stride not in (None, 32, *(OUTPUT_STRIDES if architecture.dilates else ())):
        able = "8 or 16" if architecture.dilates else "none: smp does not dilate it"
        raise zoo.errors.OptionError(f"smp:{name} cannot be built with output_stride={output_stride!r}; it can with {able}.")
    return architecture.pyramid(output_stride or 32)


def _weights_license(name: str, weights: str, /) -> str:
    return index()[name].weights_license(weights)
